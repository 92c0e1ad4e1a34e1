"""When a wait is too long, among many short ones: one timer for all of them instead of one for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Stall:
    """Calls `late`, once, when one wait has lasted `limit_s` seconds. To be closed."""

    def __init__(self, limit_s: float, late: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_s, self._late = limit_s, late
        self._since: float | None = None
        self._timer = self._loop.call_later(limit_s, self._look)

    def begin(self) -> None:
        """A wait begins."""
        self._since = self._loop.time()

    def end(self) -> None:
        """It is over."""
        self._since = None

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        left_s = self._limit_s if self._since is None else self._since + self._limit_s - now
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._late()
