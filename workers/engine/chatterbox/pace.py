"""How fast the engine's thread goes, measured step by step."""

from __future__ import annotations

import time
from collections import deque

_RECENT = 128
"""Steps."""


class Pace:
    """Counts decode steps and times them from one to the next, while there are any. Written by one thread."""

    def __init__(self) -> None:
        self.steps = 0
        self.rows = 0
        self.tokens = 0
        self._intervals: deque[float] = deque(maxlen=_RECENT)
        self._last_step: float | None = None
        self._alive_at = time.monotonic()

    @property
    def steps_per_s(self) -> float | None:
        intervals = tuple(self._intervals)
        return len(intervals) / sum(intervals) if intervals else None

    @property
    def silent_s(self) -> float:
        """Seconds since the thread was last known to go on."""
        return time.monotonic() - self._alive_at

    def alive(self) -> None:
        self._alive_at = time.monotonic()

    def step(self, *, tokens: int, rows: int) -> None:
        """A step is done that gave so many tokens, to sequences of so many rows."""
        now = time.monotonic()
        if self._last_step is not None:
            self._intervals.append(now - self._last_step)
        self._last_step = now
        if tokens:
            self.steps += 1
            self.rows += rows
            self.tokens += tokens

    def pause(self) -> None:
        """Nothing is to be decoded: the time until the next step is no step's."""
        self._last_step = None
