"""One worker as the balancer knows it: its state with the reason and since when, what it is doing, what it told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import structlog

from fleet.contract import WorkerHealth

log = structlog.get_logger()

Clock = Callable[[], float]
"""Seconds that only ever grow."""

_LEAST_WEIGHT = 0.1
_LONGEST_FULL_S = 1.0
"""A worker that says it is full is believed for so long at most: places become free at any moment."""
_LIMIT_UNTOLD = 256
"""Places of a worker that does not say how many it has."""


class State(StrEnum):
    """`starting` until the first good probe. `ready` takes requests; so does `degraded`, which has begun to fail, when
    no ready one has a place. `draining` finishes what it has. `ejected` failed its probes or its requests; `half_open`
    was, and is tried with one request at a time. `dead` has nobody listening.
    """

    starting = "starting"
    ready = "ready"
    degraded = "degraded"
    draining = "draining"
    ejected = "ejected"
    half_open = "half_open"
    dead = "dead"


SERVING = frozenset({State.ready, State.degraded, State.half_open})


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a worker changes its state. Times in seconds, of the pool's clock."""

    rise: int = 1
    """Good probes in a row that bring one in, or back."""
    fall: int = 2
    """Bad probes in a row that eject one."""
    failures: int = 5
    """Failed requests in a row that eject one."""
    most_ejected: float = 0.5
    """Share of the pool that failed requests may eject; beyond it a failing worker is only degraded."""
    ejection_s: float = 5.0
    """How long failed requests eject for, the first time; each further time twice as long."""
    longest_ejection_s: float = 300.0
    trial_s: float = 10.0
    """A half-open or degraded worker to which no request comes is ready after so long a time of good probes."""
    slow_start_s: float = 10.0
    """From a return to its full share of requests."""


class Worker:
    """One worker. `may_eject` is asked before failed requests eject it; `changed` is told of every change of state."""

    def __init__(
        self,
        url: str,
        *,
        rules: HealthRules,
        clock: Clock,
        may_eject: Callable[[Worker], bool] = lambda _: True,
        changed: Callable[[Worker], None] = lambda _: None,
    ) -> None:
        self.url = self.name = url
        self.since = clock()
        self.in_flight = self.jobs = self.pending_chars = 0
        self.requests = self.failures = self.ejections = 0
        self.health: WorkerHealth | None = None
        self.health_at: float | None = None
        self.progress_at = self.since
        self._rules, self._clock, self._may_eject, self._changed = rules, clock, may_eject, changed
        self._judged = State.starting
        self._judgement: str | None = "not probed yet"
        self._drain_reason: str | None = None
        self._drained_at = self.since
        self._good_probes = self._bad_probes = self._bad_requests = self._ejected_in_row = 0
        self._ejected_until = self._half_open_at = self._full_until = 0.0
        self._returned_at: float | None = None
        self._foreign = (0, 0)
        self._waiting: set[Callable[[], None]] = set()

    @property
    def state(self) -> State:
        """A worker that drains is told as such unless it is gone."""
        if self._drain_reason is not None and self._judged is not State.dead:
            return State.draining
        return self._judged

    @property
    def reason(self) -> str | None:
        """Why it is in its state; None for one that is well."""
        return self._drain_reason if self.state is State.draining else self._judgement

    @property
    def weight(self) -> float:
        """The share of its requests that it gets: below 1 for a while after it came back."""
        if self._returned_at is None:
            return 1.0
        share = (self._clock() - self._returned_at) / max(self._rules.slow_start_s, 1e-9)
        if share >= 1:
            self._returned_at = None
        return min(1.0, max(_LEAST_WEIGHT, share))

    @property
    def limit(self) -> int:
        """Requests for speech that it serves at once, as it told."""
        told = None if self.health is None else self.health.concurrency
        return _LIMIT_UNTOLD if told is None else max(1, told)

    @property
    def foreign_jobs(self) -> int:
        """What it speaks for others, as of its last two probes: what one alone saw may be a request on its way."""
        return min(self._foreign)

    @property
    def has_place(self) -> bool:
        if (self.state is State.half_open and self.jobs) or self._clock() < self._full_until:
            return False
        return self.jobs + self.foreign_jobs < self.limit

    @property
    def occupancy(self) -> float:
        """The places that one request more would take together with those there are, over all places."""
        return (self.jobs + self.foreign_jobs + 1) / self.limit

    @property
    def backlog(self) -> float:
        """Characters of our requests that it has to speak, over its places."""
        return self.pending_chars / self.limit

    @property
    def retry_in_s(self) -> float:
        """How long an ejected worker stays so at least."""
        return max(0.0, self._ejected_until - self._clock()) if self.state is State.ejected else 0.0

    # What it does

    def begin(self, chars: int | None) -> None:
        """One request more in flight; with `chars` it is speech, and takes a place."""
        self.in_flight += 1
        self.requests += 1
        if chars is not None:
            self.jobs += 1
            self.pending_chars += chars

    def end(self, chars: int | None) -> None:
        """What `begin` counted is over."""
        self.in_flight -= 1
        if chars is not None:
            self.jobs -= 1
            self.pending_chars -= chars

    @contextmanager
    def watched(self, lost: Callable[[], None]) -> Iterator[None]:
        """Inside the context, `lost` is called when the worker is found gone or stuck."""
        self._waiting.add(lost)
        try:
            yield
        finally:
            self._waiting.discard(lost)

    def progressed(self) -> None:
        """Bytes have come from it."""
        self.progress_at = self._clock()

    # What is learned of it

    def learned(self, health: WorkerHealth) -> None:
        known = self.health
        if known is not None and (known.pid != health.pid or known.uptime_s > health.uptime_s):
            # Another process: what the one before did is no reason to keep it out.
            self._ejected_until, self._ejected_in_row = 0.0, 0
        self.health, self.health_at, self.name = health, self._clock(), health.name
        theirs = max(0, health.running_jobs + health.queued_jobs - self.jobs)
        self._foreign = (self._foreign[1], theirs)

    def probe_succeeded(self) -> None:
        now = self._clock()
        self._good_probes, self._bad_probes = self._good_probes + 1, 0
        if self._good_probes < self._rules.rise:
            return
        match self._judged:
            case State.starting:
                self._become(State.ready, None)
            case State.dead:
                self._return()
            case State.ejected if now >= self._ejected_until:
                self._half_open_at = now
                self._become(State.half_open, "it is tried again")
            case State.half_open if now - self._half_open_at >= self._rules.trial_s:
                self._return()
            case State.degraded if not self._bad_requests or now - self.since >= self._rules.trial_s:
                self._bad_requests = 0
                self._become(State.ready, None)
            case State.ready if now - self.since >= self._rules.longest_ejection_s:
                self._ejected_in_row = 0

    def probe_failed(self, reason: str) -> None:
        self._good_probes, self._bad_probes = 0, self._bad_probes + 1
        match self._judged:
            case State.starting | State.dead | State.ejected:
                self._judgement = reason
            case State.half_open:
                self._eject(reason, self._rules.ejection_s)
            case _ if self._bad_probes >= self._rules.fall:
                self._eject(reason, 0.0)
            case _:
                self._become(State.degraded, reason)

    def probe_timed_out(self, began_at: float) -> None:
        """No answer in time. A worker that gave sound meanwhile is busy, not dead."""
        if self.progress_at < began_at:
            self.probe_failed("its probe timed out")
        elif self._judged in (State.ready, State.degraded):
            self._become(State.degraded, "its probe timed out while it gave sound")

    def refused(self, reason: str) -> None:
        """Nobody listens: no need to wait for the probes to find out."""
        self._good_probes = 0
        if self._judged is State.starting:
            self._judgement = reason
        else:
            self._become(State.dead, reason)

    def served(self) -> None:
        """A request ended well."""
        self._bad_requests = 0
        if self._judged is State.half_open:
            self._return()

    def failed(self, reason: str) -> None:
        """A request failed for a reason of the worker's own."""
        self.failures += 1
        self._bad_requests += 1
        trial = self._judged is State.half_open
        if not trial and (self._judged not in SERVING or self._bad_requests < self._rules.failures):
            return
        if self._may_eject(self):
            self._eject_longer(reason if trial else f"{self._bad_requests} requests failed in a row: {reason}")
        else:
            self._become(State.degraded, f"{reason}; too many workers are ejected already")

    def full_for(self, seconds: float) -> None:
        """It has refused a request because all its places are taken, by others' requests perhaps."""
        self._full_until = self._clock() + min(seconds, _LONGEST_FULL_S)

    def drain(self, reason: str) -> None:
        """No new requests from now on; those it has are finished."""
        if self._drain_reason is None:
            self._drain_reason, self._drained_at = reason, self._clock()
            self._tell()

    def resume(self, asked_at: float | None = None) -> None:
        """Take requests again; what was asked before the drain began does not end it."""
        if self._drain_reason is not None and (asked_at is None or asked_at > self._drained_at):
            self._drain_reason = None
            self._tell()

    def _return(self) -> None:
        self._returned_at = self._clock()
        self._become(State.ready, None)

    def _eject_longer(self, reason: str) -> None:
        seconds = min(self._rules.ejection_s * 2.0**self._ejected_in_row, self._rules.longest_ejection_s)
        self._ejected_in_row += 1
        self._eject(reason, seconds)

    def _eject(self, reason: str, seconds: float) -> None:
        self.ejections += 1
        self._bad_requests = self._good_probes = 0
        self._ejected_until = self._clock() + seconds
        self._become(State.ejected, reason)

    def _become(self, state: State, reason: str | None) -> None:
        was, self._judged, self._judgement = self._judged, state, reason
        if state is was:
            return
        self._tell()
        if state is State.dead or (state is State.ejected and self._bad_probes):  # gone or stuck, not merely failing
            for lost in tuple(self._waiting):
                lost()

    def _tell(self) -> None:
        self.since = self._clock()
        log.info("worker_state", worker=self.name, url=self.url, state=self.state, reason=self.reason)
        self._changed(self)
