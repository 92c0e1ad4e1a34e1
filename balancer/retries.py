"""How many requests may be tried again, so that a fleet in trouble is not buried under its own second attempts."""

from __future__ import annotations

import time
from collections import deque

from balancer.worker import Clock

_RECENT_S = 10.0


class RetryBudget:
    """Retries may be a share of the requests of the last 10 s; `least` of them are allowed however few those are."""

    def __init__(self, *, share: float, least: int, clock: Clock = time.monotonic) -> None:
        self._share, self._least, self._clock = share, least, clock
        self._requests: deque[float] = deque()
        self._retries: deque[float] = deque()

    def requested(self) -> None:
        """A request came in."""
        self._requests.append(self._clock())
        self._forget(self._requests)

    @property
    def allows(self) -> bool:
        """Whether one more may be tried again now."""
        self._forget(self._requests)
        self._forget(self._retries)
        return len(self._retries) < max(self._least, self._share * len(self._requests))

    def retried(self) -> None:
        self._retries.append(self._clock())

    def _forget(self, times: deque[float]) -> None:
        oldest = self._clock() - _RECENT_S
        while times and times[0] < oldest:
            times.popleft()
