"""How the next worker is chosen. One protocol, one small class each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Ask:
    """What is known of a request when its worker is chosen.

    `chars` is the length of its text, `voice` and `model` are as the caller named them. `again` says that it has been
    at another worker already.
    """

    chars: int = 0
    voice: str | None = None
    model: str | None = None
    again: bool = False


class Choosable(Protocol):
    """What a policy may know of a worker. `url` is its alone, in every balancer. `occupancy` is the places that this
    request would take together with those that are taken, over all of its places; `backlog` the characters of text it
    has to speak, over its places. `weight`, in (0, 1], falls below 1 while a worker that came back is started slowly.
    """

    @property
    def url(self) -> str: ...

    @property
    def occupancy(self) -> float: ...

    @property
    def backlog(self) -> float: ...

    @property
    def weight(self) -> float: ...


W = TypeVar("W", bound=Choosable)


class Policy(Protocol):
    """Chooses between workers that are all able to serve."""

    name: str

    def choose(self, candidates: Sequence[W], everyone: Sequence[W], ask: Ask) -> W:
        """One of `candidates`, which is not empty; `everyone` is the whole pool in its fixed order."""
        ...


class RoundRobin:
    """Each worker in its turn; one that cannot serve is passed over without changing the others' order.

    A second attempt does not count as a turn: else, of two workers, a failing one would be first for every request.
    One with a weight below 1 takes that share of its turns.
    """

    name = "round_robin"

    def __init__(self) -> None:
        self._last: str | None = None
        self._credit: dict[str, float] = {}

    def choose(self, candidates: Sequence[W], everyone: Sequence[W], ask: Ask) -> W:
        turns = self._in_turn(candidates, everyone)
        if ask.again:
            return turns[0]
        chosen = next((worker for worker in turns if self._takes_turn(worker)), turns[0])
        self._last = chosen.url
        return chosen

    def _in_turn(self, candidates: Sequence[W], everyone: Sequence[W]) -> list[W]:
        """The candidates, from the one after the last one chosen, going round."""
        urls = [worker.url for worker in everyone]
        after = urls.index(self._last) + 1 if self._last in urls else 0
        able = {worker.url for worker in candidates}
        return [worker for worker in (*everyone[after:], *everyone[:after]) if worker.url in able]

    def _takes_turn(self, worker: Choosable) -> bool:
        if worker.weight >= 1:
            self._credit.pop(worker.url, None)
            return True
        saved = self._credit.get(worker.url, 0.0) + worker.weight
        self._credit[worker.url] = saved - 1 if saved >= 1 else saved
        return saved >= 1


class LeastOutstanding:
    """The worker with the fewest requests for its places, then with the fewest characters to speak for them; among
    equals, each in its turn.

    Requests come first: what a batched worker's step takes depends on its rows, and a long text counts in full until
    its end (`scripts/simulate_policies.py`).
    """

    name = "least_outstanding"

    def __init__(self) -> None:
        self._ties = RoundRobin()

    def choose(self, candidates: Sequence[W], everyone: Sequence[W], ask: Ask) -> W:
        least = min(_load(worker) for worker in candidates)
        return self._ties.choose([worker for worker in candidates if _load(worker) <= least], everyone, ask)


class PowerOfTwo:
    """The less loaded of two that are drawn: nearly as good as the least loaded, and no herd runs to one worker when
    several balancers see the same figures (Mitzenmacher 2001).
    """

    name = "p2c"

    def __init__(self, lots: random.Random | None = None) -> None:
        self._lots = lots or random.Random()  # noqa: S311 - no secret

    def choose(self, candidates: Sequence[W], everyone: Sequence[W], ask: Ask) -> W:  # noqa: ARG002 - the protocol's
        drawn = self._lots.sample(list(candidates), min(2, len(candidates)))
        return min(drawn, key=_load)


class VoiceAffinity:
    """Each voice has two workers of its own, whose conditionals of it are warm, and goes to the less loaded of them:
    rendezvous hashing (Thaler and Ravishankar 1998), its load bounded as by two choices (Mitzenmacher 2001). Requests
    that name no voice go where the least is outstanding.
    """

    name = "voice_affinity"

    def __init__(self) -> None:
        self._voiceless = LeastOutstanding()

    def choose(self, candidates: Sequence[W], everyone: Sequence[W], ask: Ask) -> W:
        if ask.voice is None:
            return self._voiceless.choose(candidates, everyone, ask)
        voice = ask.voice.casefold()
        by_rank = sorted(candidates, key=lambda worker: _rank(voice, worker.url), reverse=True)
        return min(by_rank[:2], key=lambda worker: worker.occupancy / worker.weight)


def _load(worker: Choosable) -> tuple[float, float]:
    return worker.occupancy / worker.weight, worker.backlog / worker.weight


def _rank(voice: str, worker: str) -> bytes:
    return blake2b(f"{worker}\0{voice}".encode(errors="replace"), digest_size=8).digest()


POLICIES: dict[str, type[RoundRobin | LeastOutstanding | PowerOfTwo | VoiceAffinity]] = {
    kind.name: kind for kind in (RoundRobin, LeastOutstanding, PowerOfTwo, VoiceAffinity)
}
