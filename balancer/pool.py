"""The workers, what is known of each, and who may be asked next."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum

import structlog

from balancer.policy import Policy
from fleet.contract import WorkerHealth
from fleet.errors import NotReady

log = structlog.get_logger()

_RETRY_AFTER_S = 1.0


class State(StrEnum):
    """`starting` until the first good probe; `ejected` while it fails its probes or refuses connections."""

    starting = "starting"
    ready = "ready"
    ejected = "ejected"


class Worker:
    """One worker as the balancer knows it. Times are of the monotonic clock, in seconds."""

    def __init__(self, name: str, url: str, *, rise: int, fall: int) -> None:
        self.name = name
        self.url = url
        self.state = State.starting
        self.reason: str | None = "not probed yet"
        self.since = time.monotonic()
        self.in_flight = 0
        self.requests = 0
        self.failures = 0
        self.health: WorkerHealth | None = None
        self.health_at: float | None = None
        self._rise, self._fall = rise, fall
        self._good_probes = self._bad_probes = 0

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Count one request in flight, on every way out."""
        self.in_flight += 1
        self.requests += 1
        try:
            yield
        finally:
            self.in_flight -= 1

    def learned(self, health: WorkerHealth) -> None:
        self.health, self.health_at = health, time.monotonic()
        self.name = health.name

    def probe_succeeded(self) -> None:
        self._good_probes, self._bad_probes = self._good_probes + 1, 0
        if self._good_probes >= self._rise:
            self._become(State.ready, None)

    def probe_failed(self, reason: str) -> None:
        self._good_probes, self._bad_probes = 0, self._bad_probes + 1
        if self.state is State.starting:
            self.reason = reason
        elif self._bad_probes >= self._fall:
            self._become(State.ejected, reason)

    def refused_connection(self, reason: str) -> None:
        """A request found nobody listening: no need to wait for the probes to find out."""
        self._good_probes = 0
        if self.state is State.ready:
            self._become(State.ejected, reason)

    def _become(self, state: State, reason: str | None) -> None:
        if state is not self.state:
            log.info("worker_state", worker=self.name, url=self.url, was=self.state, now=state, reason=reason)
            self.state, self.since = state, time.monotonic()
        self.reason = reason


class WorkerPool:
    """A fixed list of workers and the policy that chooses between the ready ones."""

    def __init__(self, urls: Collection[str], policy: Policy, *, rise: int, fall: int) -> None:
        self.workers = [Worker(url, url, rise=rise, fall=fall) for url in urls]
        self.policy = policy

    def ready(self, *, excluding: Collection[Worker] = ()) -> list[Worker]:
        return [worker for worker in self.workers if worker.state is State.ready and worker not in excluding]

    def conflict(self, worker: Worker, health: WorkerHealth) -> str | None:
        """Why a worker with this health must not join those that are ready: its library is not theirs."""
        for other in self.ready(excluding=[worker]):
            theirs = None if other.health is None else other.health.store_id
            if None not in (theirs, health.store_id) and theirs != health.store_id:
                return f"its library of voices is another one than that of {other.name}"
        return None

    def choose(self, *, excluding: Collection[Worker] = ()) -> Worker:
        """The next worker to ask. Raises `NotReady` when there is none."""
        candidates = self.ready(excluding=excluding)
        if not candidates:
            raise NotReady("no worker is ready to speak", retry_after=_RETRY_AFTER_S)
        return self.policy.choose(candidates, self.workers, again=bool(excluding))
