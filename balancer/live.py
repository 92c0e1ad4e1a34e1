"""The fleet's figures as they change: one look a second, for however many listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from fleet.contract import FleetStats
from fleet.sse import event

_EVERY_S = 1.0


class LiveStats:
    """Figures as server-sent events. A listener who is slow misses some of them, and is sent the newest next."""

    def __init__(self, look: Callable[[], FleetStats], stopping: asyncio.Event) -> None:
        self._look, self._stopping = look, stopping
        self._told = b""
        self._looked_at = -_EVERY_S

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The figures at once, then each second, until the balancer stops."""
        yield b"retry: 1000\n\n"
        while not self._stopping.is_set():
            yield self._newest()
            try:
                await asyncio.wait_for(self._stopping.wait(), self._looked_at + _EVERY_S - self._now())
            except TimeoutError:
                continue

    def _newest(self) -> bytes:
        if self._now() - self._looked_at >= _EVERY_S:
            self._looked_at = self._now()
            self._told = event("stats", self._look().model_dump_json())
        return self._told

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
