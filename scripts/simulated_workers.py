"""Workers in simulated time, fed by Poisson arrivals through the balancer's own policies. Nothing sleeps.

A worker decodes its live rows together, one token of each at every step. A step of n rows takes `base_s + n * row_s`;
here rows advance smoothly between arrivals and ends instead of step by step, which moves an end by less than a step.
Rows above its places wait in the worker's queue, first come, first served. A serial worker has one place.

A balancer knows of a worker what the real one does, through the same class: its own requests there, the characters of
each in full until its end, and of the other balancers' requests the number alone, the smaller of the last two probes'.
Nothing fails here, so that every worker has its full weight.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from balancer.policy import Ask, Policy
from balancer.worker import HealthRules
from balancer.worker import Worker as Known
from fleet.contract import WorkerHealth

TOKENS_PER_CHAR = 25 / 15
"""The model speaks 25 tokens a second, and speech runs at about 15 characters a second."""
VOICES_WARM = 20
"""Voices whose conditionals a worker keeps, those used last."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a worker can do. Times in seconds; `speed` 0.5 takes twice as long for each step."""

    slots: int
    base_s: float
    row_s: float
    speed: float = 1.0

    def step_s(self, rows: int) -> float:
        return (self.base_s + self.row_s * rows) / self.speed

    @property
    def tokens_per_s(self) -> float:
        """With every place taken."""
        return self.slots / self.step_s(self.slots)


@dataclass(slots=True)
class Request:
    """Times are in seconds since the start; `warm` says that its worker had the voice at hand."""

    number: int
    arrives_at: float
    chars: float
    voice: int
    starts_at: float = 0.0
    ends_at: float = 0.0
    warm: bool = False

    @property
    def tokens(self) -> float:
        return self.chars * TOKENS_PER_CHAR


class Worker:
    """Continuous batching over fixed places, and a queue."""

    def __init__(self, url: str, kind: Kind) -> None:
        self.url, self.kind = url, kind
        self.given_tokens = 0.0
        self.started_at = -1.0
        self._queue: deque[Request] = deque()
        self._live: list[tuple[float, int, Request]] = []  # a heap; first the value of _decoded at which a row ends
        self._decoded = 0.0  # tokens that a row present since the start would have by _now
        self._now = 0.0
        self._voices: OrderedDict[int, None] = OrderedDict()
        self._health = _health(url, kind.slots)

    @property
    def rows(self) -> int:
        return len(self._live)

    def health(self) -> WorkerHealth:
        """What it answers to a probe; good until the next."""
        self._health.running_jobs, self._health.queued_jobs = len(self._live), len(self._queue)
        return self._health

    def give(self, request: Request, now: float) -> None:
        if len(self._live) < self.kind.slots:
            self._start(request, now)
        else:
            self._queue.append(request)

    def next_end(self) -> float:
        """When its next row ends if none joins before."""
        return self._now + max(0.0, self._live[0][0] - self._decoded) * self.kind.step_s(len(self._live))

    def end_one(self, now: float) -> Request:
        """The row that ends now; the first in the queue takes its place."""
        self._decode_until(now)
        _, _, request = heapq.heappop(self._live)
        request.ends_at = now
        if self._queue:
            self._start(self._queue.popleft(), now)
        return request

    def _start(self, request: Request, now: float) -> None:
        self._decode_until(now)
        request.starts_at = self.started_at = now
        request.warm = self._use(request.voice)
        self.given_tokens += request.tokens
        heapq.heappush(self._live, (self._decoded + request.tokens, request.number, request))

    def _decode_until(self, now: float) -> None:
        if self._live:
            self._decoded += (now - self._now) / self.kind.step_s(len(self._live))
        self._now = now

    def _use(self, voice: int) -> bool:
        warm = voice in self._voices
        self._voices[voice] = None
        self._voices.move_to_end(voice)
        if len(self._voices) > VOICES_WARM:
            self._voices.popitem(last=False)
        return warm


def _health(url: str, slots: int) -> WorkerHealth:
    return WorkerHealth(
        name=url,
        version="0",
        engine="simulated",
        model="simulated",
        device="none",
        demo_voice=False,
        ready=True,
        reason=None,
        voices=0,
        languages=1,
        running_jobs=0,
        queued_jobs=0,
        rtf=None,
        ttfa_s=None,
        uptime_s=0.0,
        memory_bytes=0,
        pid=0,
        concurrency=slots,
    )


class Balancer:
    """A policy and the workers as it knows them. One that `admits` sends a request only where there is a place; one
    that does not count characters knows every backlog as 0.
    """

    def __init__(
        self, policy: Policy, workers: Sequence[Worker], *, admits: bool = False, counts_chars: bool = True
    ) -> None:
        self._policy, self._admits, self._counts_chars = policy, admits, counts_chars
        self._workers = {worker.url: worker for worker in workers}
        self._pool = [Known(worker.url, rules=HealthRules(), clock=lambda: 0.0) for worker in workers]
        self._placed: dict[int, tuple[Known, int]] = {}
        self.probe()

    def place(self, request: Request) -> Worker | None:
        """None while there is no place for it."""
        candidates = [known for known in self._pool if known.has_place] if self._admits else self._pool
        if not candidates:
            return None
        chars = max(1, round(request.chars)) if self._counts_chars else 0
        ask = Ask(chars=chars, voice=f"voice-{request.voice}")
        known = self._policy.choose(candidates, self._pool, ask)
        known.begin(chars)
        self._placed[request.number] = known, chars
        return self._workers[known.url]

    def ended(self, request: Request) -> bool:
        """Whether it was this balancer's."""
        if request.number not in self._placed:
            return False
        known, chars = self._placed.pop(request.number)
        known.end(chars)
        return True

    def probe(self) -> None:
        for known in self._pool:
            known.learned(self._workers[known.url].health())


class Placing(Protocol):
    """Who decides where a request goes: None while it must wait for a place, in one queue with the others."""

    def place(self, request: Request) -> Worker | None: ...

    def ended(self, request: Request) -> None: ...

    def refresh(self) -> None: ...


class Balancers:
    """Requests come to one of them by lot. At a refresh each probes every worker."""

    def __init__(self, balancers: list[Balancer], lots: random.Random) -> None:
        self._balancers, self._lots = balancers, lots

    def place(self, request: Request) -> Worker | None:
        return self._lots.choice(self._balancers).place(request)

    def ended(self, request: Request) -> None:
        assert any(balancer.ended(request) for balancer in self._balancers)

    def refresh(self) -> None:
        for balancer in self._balancers:
            balancer.probe()


class CentralQueue:
    """What an admission queue with a limit for each worker comes near to: a request goes to the worker with the largest
    share of its places free, among equals to the one that started nothing for longest, and waits while there is none.
    """

    def __init__(self, workers: list[Worker]) -> None:
        self._workers = workers

    def place(self, request: Request) -> Worker | None:  # noqa: ARG002 - the protocol's
        worker = min(self._workers, key=lambda worker: (worker.rows / worker.kind.slots, worker.started_at))
        return worker if worker.rows < worker.kind.slots else None

    def ended(self, request: Request) -> None:
        pass

    def refresh(self) -> None:
        pass


def arrivals(per_s: float, chars: Sequence[float], voices: Sequence[int], lots: np.random.Generator) -> list[Request]:
    """A Poisson process, its requests numbered in order."""
    times = np.cumsum(lots.exponential(1 / per_s, len(chars))).tolist()
    return [Request(*each) for each in zip(range(len(chars)), times, chars, voices, strict=True)]


def run(requests: Sequence[Request], placing: Placing, *, refresh_s: float = math.inf) -> None:
    """Until the last has ended. Every `refresh_s` seconds the placing is refreshed."""
    orders = count()
    events: list[tuple[float, int, Request | Worker | None]]
    events = [(request.arrives_at, next(orders), request) for request in requests]  # in order, hence a heap
    heapq.heappush(events, (refresh_s, next(orders), None))
    due: dict[str, int] = {}  # by url, the order of a worker's only event that counts
    waiting: deque[Request] = deque()
    left = len(requests)

    def expect_end(worker: Worker) -> None:
        due[worker.url] = order = next(orders)
        if worker.rows:
            heapq.heappush(events, (worker.next_end(), order, worker))

    def place_waiting() -> None:
        while waiting and (worker := placing.place(waiting[0])) is not None:
            worker.give(waiting.popleft(), now)
            expect_end(worker)

    while left:
        now, order, event = heapq.heappop(events)
        if isinstance(event, Request):
            waiting.append(event)
            place_waiting()
        elif event is None:
            placing.refresh()
            heapq.heappush(events, (now + refresh_s, next(orders), None))
        elif due[event.url] == order:
            placing.ended(event.end_one(now))
            left -= 1
            expect_end(event)
            place_waiting()
