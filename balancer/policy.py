"""How the next worker is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

W = TypeVar("W")


class Policy(Protocol):
    """Chooses between workers that are all able to serve."""

    name: str

    def choose(self, candidates: Sequence[W], everyone: Sequence[W], *, again: bool) -> W:
        """One of `candidates`, which is not empty; `everyone` is the whole pool in its fixed order.

        `again` says that the request has been at another worker already.
        """
        ...


class RoundRobin:
    """Each worker in its turn; one that cannot serve is passed over without changing the others' order.

    A second attempt does not count as a turn: else, of two workers, a failing one would be first for every request.
    """

    name = "round_robin"

    def __init__(self) -> None:
        self._last = -1

    def choose(self, candidates: Sequence[W], everyone: Sequence[W], *, again: bool) -> W:
        able = [position for position, worker in enumerate(everyone) if worker in candidates]
        chosen = next((position for position in able if position > self._last), able[0])
        if not again:
            self._last = chosen
        return everyone[chosen]


POLICIES = {RoundRobin.name: RoundRobin}
