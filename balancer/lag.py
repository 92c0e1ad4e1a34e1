"""How late the event loop is: a balancer that gets no processor must not take its workers for slow."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_LOOK_EVERY_S = 0.05
_REMEMBERED_S = 10.0


class LoopLag:
    """Measures, while its context is entered, by how much short sleeps take too long."""

    def __init__(self) -> None:
        self._lags: deque[tuple[float, float]] = deque()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._look(), name="loop-lag")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _look(self) -> None:
        while True:
            began_at = time.monotonic()
            await asyncio.sleep(_LOOK_EVERY_S)
            now = time.monotonic()
            self._lags.append((now, now - began_at - _LOOK_EVERY_S))
            while self._lags[0][0] < now - _REMEMBERED_S:
                self._lags.popleft()

    def worst_s(self, since: float) -> float:
        """The longest time, ended after `since` on the monotonic clock, for which nothing ran that should have."""
        return max((lag for at, lag in self._lags if at >= since), default=0.0)

    @property
    def recent_s(self) -> float:
        """The longest of the last 10 s."""
        return self.worst_s(0.0)
