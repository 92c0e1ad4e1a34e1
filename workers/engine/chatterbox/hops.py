"""Which tokens of a stream are made into sound at once. No torch: the plan is tested without it."""

from __future__ import annotations

from dataclasses import dataclass

LOOKAHEAD = 3
"""Tokens behind a hop that its encoding looks at; what they themselves would sound like is not known yet."""

PROVISIONAL = 8
"""Mel frames at the end of an unfinished stream that only serve as context: the next hop computes them again."""

FRAMES_PER_TOKEN = 2

FIRST_HOPS = (12, 25, 50, 100)
"""Tokens of the hops of a request's first segment: little for a quick start, then more for less work; the last repeats.
The first hop waits for 16 tokens: its own, the lookahead and one held back."""

LATER_HOPS = (50, 100)
"""The same for its other segments, which are decoded while the first ones are heard."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One run of the vocoder.

    Tokens `context` to `stop` are computed, with the lookahead behind them unless this is the `last`. Mel frames from
    `first_frame` on are new, and of those the ones before `end_frame` are final.
    """

    context: int
    stop: int
    first_frame: int
    end_frame: int
    last: bool

    @property
    def fed(self) -> int:
        """Where the tokens that are needed end."""
        return self.stop if self.last else self.stop + LOOKAHEAD


class HopPlan:
    """Lays hop after hop over a growing stream of tokens, always at the same places whenever it is asked.

    `window` is how many tokens before a hop are computed with it. Without `hops` the whole stream is one hop.
    """

    def __init__(self, hops: tuple[int, ...], *, window: int) -> None:
        self._hops = hops
        self._window = window
        self._taken = 0
        self._stop = 0
        self._first_frame = 0

    def next(self, tokens: int, *, ended: bool) -> Hop | None:
        """The next hop of a stream of so many tokens, or None when more must come first; then `take` it.

        The newest token is held back until another follows it or the stream has ended.
        """
        size = self._hops[min(self._taken, len(self._hops) - 1)] if self._hops else None
        if size is not None and tokens > self._stop + size + LOOKAHEAD:
            stop, last = self._stop + size, False
        elif ended and tokens > 0:
            stop, last = tokens, True
        else:
            return None
        first = self._first_frame
        end = FRAMES_PER_TOKEN * stop - (0 if last else PROVISIONAL)
        return Hop(max(0, first // FRAMES_PER_TOKEN - self._window), stop, first, end, last)

    def take(self, hop: Hop) -> None:
        """Go on behind it."""
        self._taken, self._stop, self._first_frame = self._taken + 1, hop.stop, hop.end_frame
