"""Pool, health and policy together, by whatever sequence of events hypothesis finds, on a clock of its own."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from balancer.policy import POLICIES, Ask
from balancer.pool import WorkerPool
from balancer.worker import SERVING, HealthRules, State, Worker
from fleet.errors import NotReady
from tests.balancer.faulty import HEALTH

URLS = [f"http://w{n}" for n in range(4)]
RULES = HealthRules(rise=2, fall=2, failures=3, most_ejected=0.5, ejection_s=5, longest_ejection_s=40, trial_s=10)
workers = st.integers(0, len(URLS) - 1)


class PoolMachine(RuleBasedStateMachine):
    """Probes, requests, drains, departures and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.running: list[tuple[Worker, int]] = []

    @initialize(policy=st.sampled_from(sorted(POLICIES)), places=st.lists(st.integers(1, 3), min_size=4, max_size=4))
    def begin(self, policy: str, places: list[int]) -> None:
        self.pool = WorkerPool(POLICIES[policy](), rules=RULES, clock=lambda: self.now)
        self.pool.sync("settings", URLS)
        self.all = list(self.pool.workers)
        for worker, count in zip(self.all, places, strict=True):
            worker.learned(HEALTH.model_copy(update={"name": worker.url, "concurrency": count}))

    @rule(seconds=st.floats(0.1, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(n=workers)
    def good_probe(self, n: int) -> None:
        self.all[n].probe_succeeded()

    @rule(n=workers)
    def bad_probe(self, n: int) -> None:
        self.all[n].probe_failed("bad")

    @rule(n=workers, busy=st.booleans())
    def late_probe(self, n: int, busy: bool) -> None:
        worker, began_at, was = self.all[n], self.now, self.all[n].state
        self.now += 1
        if busy:
            worker.progressed()
        worker.probe_timed_out(began_at)
        if busy and was in SERVING:
            assert worker.state in SERVING, "a busy worker was taken for a dead one"

    @rule(n=workers)
    def nobody_listens(self, n: int) -> None:
        self.all[n].refused("refused")
        assert self.all[n].state not in SERVING

    @rule(n=workers, drains=st.booleans())
    def drain(self, n: int, drains: bool) -> None:
        if self.all[n] in self.pool.workers:
            self.all[n].drain("told to") if drains else self.all[n].resume()

    @rule(urls=st.sets(st.sampled_from(URLS), min_size=1))
    def membership(self, urls: set[str]) -> None:
        self.pool.sync("settings", [url for url in URLS if url in urls])
        known = {worker.url: worker for worker in (*self.pool.workers, *self.pool.leaving)}
        self.all = [known.get(worker.url, worker) for worker in self.all]

    @rule(chars=st.integers(1, 500), voice=st.sampled_from([None, "a", "b"]), again=st.booleans())
    def request(self, chars: int, voice: str | None, again: bool) -> None:
        able, ask = self.pool.serving(), Ask(chars, voice, again=again)
        if not able:
            with pytest.raises(NotReady) as refused:
                self.pool.choose(ask)
            assert (refused.value.retry_after or 0) >= 1
            return
        worker = self.pool.choose(ask)
        if worker is None:
            assert not any(other.has_place for other in able)
            return
        assert worker in able
        assert worker.has_place
        if worker.state is State.degraded:
            assert not any(other.has_place and other.state is not State.degraded for other in able)
        worker.begin(chars)
        self.running.append((worker, chars))

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 1000), failed=st.booleans())
    def request_ends(self, which: int, failed: bool) -> None:
        worker, chars = self.running.pop(which % len(self.running))
        was = worker.state
        if failed:
            worker.failed("failed")
        else:
            worker.served()
        if was in (State.ready, State.degraded) and worker.state is State.ejected:
            out = sum(other.state in (State.ejected, State.dead) for other in self.pool.workers)
            assert out <= RULES.most_ejected * len(self.pool.workers), "more were ejected than may be"
            assert self.pool.serving(), "the last one was ejected for its requests"
        worker.end(chars)
        self.pool.changed()

    @invariant()
    def counts_are_right(self) -> None:
        for worker in self.all:
            mine = [chars for other, chars in self.running if other is worker]
            assert (worker.in_flight, worker.jobs, worker.pending_chars) == (len(mine), len(mine), sum(mine))
            assert 0 < worker.weight <= 1
            assert (worker.reason is None) == (worker.state is State.ready)
        urls = [worker.url for worker in (*self.pool.workers, *self.pool.leaving)]
        assert len(urls) == len(set(urls))
        assert all(worker.in_flight for worker in self.pool.leaving)

    def teardown(self) -> None:
        """Whatever has happened, good probes and time bring every worker back, and nothing is left counted."""
        if not hasattr(self, "pool"):
            return
        for worker, chars in self.running:
            worker.end(chars)
        self.pool.sync("settings", URLS)
        for worker in self.pool.workers:
            worker.resume()
        for _ in range(20):
            self.now += RULES.longest_ejection_s
            for worker in self.pool.workers:
                worker.probe_succeeded()
        assert {worker.state for worker in self.pool.workers} == {State.ready}
        assert sum(worker.in_flight + worker.pending_chars for worker in self.pool.workers) == 0
        assert {worker.weight for worker in self.pool.workers} == {1.0} or self.now == 0


PoolMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPoolMachine = PoolMachine.TestCase
