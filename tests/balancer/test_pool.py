"""Workers' states, the pool's membership, and who may be asked."""

from __future__ import annotations

from typing import Any

import pytest

from balancer.policy import Ask, RoundRobin
from balancer.pool import WorkerPool
from balancer.worker import HealthRules, State, Worker
from fleet.errors import NotReady
from tests.balancer.faulty import HEALTH

RULES = HealthRules(rise=1, fall=2, failures=3, ejection_s=5, longest_ejection_s=60, trial_s=10, slow_start_s=10)


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def a_worker(clock: Clock, **changes: Any) -> Worker:
    return Worker("http://w", rules=HealthRules(**{**vars_of(RULES), **changes}), clock=clock)


def state_of(worker: Worker) -> State:
    """As it is now: the type checker takes a property for something that stays."""
    return worker.state


def vars_of(rules: HealthRules) -> dict[str, Any]:
    return {name: getattr(rules, name) for name in HealthRules.__slots__}


def a_pool(clock: Clock, count: int = 3, **settings: Any) -> WorkerPool:
    pool = WorkerPool(RoundRobin(), rules=RULES, clock=clock, **settings)
    pool.sync("settings", [f"http://w{n}" for n in range(count)])
    for worker in pool.workers:
        worker.probe_succeeded()
    return pool


def test_worker_becomes_ready_after_enough_good_probes(clock: Clock) -> None:
    """`rise` good probes in a row, and a bad one between them starts the count again."""
    worker = a_worker(clock, rise=2)
    worker.probe_succeeded()
    worker.probe_failed("no")
    worker.probe_succeeded()
    assert (state_of(worker), worker.reason) == (State.starting, "no")
    worker.probe_succeeded()
    assert (state_of(worker), worker.reason) == (State.ready, None)


def test_bad_probes_degrade_then_eject_and_good_ones_bring_back_half_open(clock: Clock) -> None:
    """One bad probe degrades, `fall` eject; the first good one lets one request try it, which makes it ready."""
    worker = a_worker(clock)
    worker.probe_succeeded()
    worker.probe_failed("slow")
    assert (state_of(worker), worker.reason) == (State.degraded, "slow")
    worker.probe_failed("gone")
    assert (state_of(worker), worker.reason) == (State.ejected, "gone")
    worker.probe_succeeded()
    assert state_of(worker) is State.half_open
    worker.begin(10)
    assert not worker.has_place, "one request at a time"
    worker.served()
    worker.end(10)
    assert state_of(worker) is State.ready
    assert worker.weight == pytest.approx(0.1)


def test_good_probe_ends_what_a_bad_one_began(clock: Clock) -> None:
    """Degraded is no more than a suspicion."""
    worker = a_worker(clock)
    worker.probe_succeeded()
    worker.probe_failed("slow")
    worker.probe_succeeded()
    assert (state_of(worker), worker.reason) == (State.ready, None)


def test_failed_requests_eject_for_a_time_that_grows(clock: Clock) -> None:
    """`failures` in a row eject for 5 s, failed trials for 10 s, 20 s and more; probes alone bring nothing back."""
    worker = a_worker(clock)
    worker.probe_succeeded()
    for _ in range(3):
        worker.failed("reset")
    for seconds in (5, 10, 20, 40, 60, 60):
        assert state_of(worker) is State.ejected
        clock.now += seconds - 0.1
        worker.probe_succeeded()
        assert state_of(worker) is State.ejected
        clock.now += 0.2
        worker.probe_succeeded()
        assert state_of(worker) is State.half_open
        worker.failed("reset again")
    assert worker.ejections == 7


def test_success_between_failures_starts_their_count_again(clock: Clock) -> None:
    """What ejects is a row of failures, not their number."""
    worker = a_worker(clock)
    worker.probe_succeeded()
    for _ in range(10):
        worker.failed("reset")
        worker.failed("reset")
        worker.served()
    assert (state_of(worker), worker.failures) == (State.ready, 20)


def test_half_open_worker_that_nobody_asks_becomes_ready_by_its_probes(clock: Clock) -> None:
    """After ten seconds of good ones: an idle fleet heals too."""
    worker = a_worker(clock)
    worker.probe_succeeded()
    worker.probe_failed("x")
    worker.probe_failed("x")
    worker.probe_succeeded()
    clock.now += 9
    worker.probe_succeeded()
    assert state_of(worker) is State.half_open
    clock.now += 2
    worker.probe_succeeded()
    assert state_of(worker) is State.ready


def test_refused_connection_is_certain_knowledge(clock: Clock) -> None:
    """Nobody listens: dead at once, whatever `fall` is; a new process behind the address is ready at once, slowly."""
    worker = a_worker(clock, fall=5)
    worker.probe_succeeded()
    worker.refused("refused")
    assert state_of(worker) is State.dead
    worker.probe_succeeded()
    assert state_of(worker) is State.ready
    assert worker.weight == pytest.approx(0.1)
    clock.now += 5
    assert worker.weight == pytest.approx(0.5)
    clock.now += 5
    assert worker.weight == 1


def test_busy_worker_is_not_taken_for_a_dead_one(clock: Clock) -> None:
    """A probe that times out while the worker gives sound says that it is busy; one that does in silence counts."""
    worker = a_worker(clock)
    worker.probe_succeeded()
    for _ in range(10):
        began_at = clock.now
        clock.now += 3
        worker.progressed()
        worker.probe_timed_out(began_at)
    assert state_of(worker) is State.degraded
    for _ in range(2):
        began_at = clock.now + 0.1
        clock.now += 3
        worker.probe_timed_out(began_at)
    assert state_of(worker) is State.ejected


def test_drained_worker_finishes_and_takes_nothing_new(clock: Clock) -> None:
    """Its state says so with the reason until it resumes; a probe sent before the drain does not end it."""
    pool = a_pool(clock, 2)
    drained, other = pool.workers
    drained.drain("an administrator drains it")
    assert (state_of(drained), drained.reason) == (State.draining, "an administrator drains it")
    assert {pool.choose(Ask()) for _ in range(4)} == {other}
    drained.resume(asked_at=clock.now - 1)
    assert state_of(drained) is State.draining
    drained.resume(asked_at=clock.now + 1)
    assert state_of(drained) is State.ready


def test_lost_worker_wakes_those_who_wait_for_it(clock: Clock) -> None:
    """Whoever waits for a first chunk is told when the worker is ejected, and not after it has it."""
    worker, told = a_worker(clock), []
    worker.probe_succeeded()
    with worker.watched(lambda: told.append("in time")):
        worker.probe_failed("x")
        worker.probe_failed("x")
    worker.probe_succeeded()
    with worker.watched(lambda: told.append("late")):
        pass
    worker.refused("gone")
    assert told == ["in time"]


def test_failed_requests_never_eject_the_last_one_or_more_than_their_share(clock: Clock) -> None:
    """At most half of four; a failing one beyond that is degraded and serves when no other can."""
    pool = a_pool(clock, 4)
    for worker in pool.workers:
        for _ in range(3):
            worker.failed("reset")
    states = [worker.state for worker in pool.workers]
    assert states == [State.ejected, State.ejected, State.degraded, State.degraded]
    assert pool.choose(Ask()) in pool.workers[2:]


def test_degraded_worker_is_asked_when_no_ready_one_has_a_place(clock: Clock) -> None:
    """And not before."""
    pool = a_pool(clock, 2)
    degraded, ready = pool.workers
    degraded.probe_failed("slow")
    ready.learned(HEALTH.model_copy(update={"concurrency": 1}))
    assert {pool.choose(Ask()) for _ in range(4)} == {ready}
    ready.begin(5)
    assert pool.choose(Ask()) is degraded


def test_nobody_ready_is_a_typed_error_that_says_when_to_come_again(clock: Clock) -> None:
    """The time until the first ejection ends; all busy is no error."""
    pool = a_pool(clock, 2)
    with pytest.raises(NotReady):
        pool.choose(Ask(), excluding=pool.workers)
    for worker in pool.workers:
        worker.learned(HEALTH.model_copy(update={"concurrency": 1}))
        worker.begin(1)
    assert pool.choose(Ask()) is None
    for _ in range(3):
        pool.workers[0].failed("reset")
    pool.workers[1].drain("x")
    with pytest.raises(NotReady) as refused:
        pool.choose(Ask())
    assert refused.value.retry_after == 5


def test_what_leaves_the_pool_finishes_first(clock: Clock) -> None:
    """It takes nothing new, is counted while it has requests, and may come back."""
    pool = a_pool(clock, 2)
    leaver = pool.workers[1]
    leaver.begin(10)
    pool.sync("settings", ["http://w0"])
    assert (leaver.state, pool.leaving) == (State.draining, [leaver])
    pool.sync("settings", ["http://w0", "http://w1"])
    assert (pool.workers[1], leaver.state, pool.leaving) == (leaver, State.ready, [])
    pool.sync("settings", ["http://w0"])
    leaver.end(10)
    pool.changed()
    assert pool.leaving == []


def test_worker_of_two_sources_stays_while_one_names_it(clock: Clock) -> None:
    """A registration does not take out what the settings name."""
    pool = a_pool(clock, 1)
    pool.sync("registered", ["http://w0", "http://w9"])
    pool.sync("registered", [])
    assert [worker.url for worker in pool.workers] == ["http://w0"]


@pytest.mark.parametrize(
    ("theirs", "said"),
    [({"store_id": "b"}, "library of voices"), ({"engine": "chatterbox", "model": "cb-1"}, "BALANCER_MIXED_MODELS")],
)
def test_worker_that_does_not_belong_is_refused_with_the_reason(
    clock: Clock, theirs: dict[str, str], said: str
) -> None:
    """Another library, engine or model; the one that serves already is right."""
    pool = a_pool(clock, 2)
    first, second = pool.workers
    first.learned(HEALTH.model_copy(update={"store_id": "a"}))
    conflict = pool.conflict(second, HEALTH.model_copy(update={"store_id": "a", **theirs}))
    assert conflict is not None
    assert said in conflict
    assert pool.conflict(second, HEALTH.model_copy(update={"store_id": "a"})) is None


def test_models_that_differ_on_purpose_are_routed_by_name(clock: Clock) -> None:
    """A model's own name finds its workers; any other name means the first worker's model; a full one is waited for."""
    pool = a_pool(clock, 3, mixed_models=True)
    for worker, model in zip(pool.workers, ("small", "large", "large"), strict=True):
        worker.learned(HEALTH.model_copy(update={"model": model, "concurrency": 1}))
    assert pool.conflict(pool.workers[1], HEALTH.model_copy(update={"model": "large"})) is None
    assert {pool.choose(Ask(model="large")) for _ in range(4)} == set(pool.workers[1:])
    assert {pool.choose(Ask(model=model)) for model in ("small", "tts-1", None)} == {pool.workers[0]}
    pool.workers[0].begin(1)
    assert pool.choose(Ask(model="small")) is None
    pool.workers[0].refused("gone")
    with pytest.raises(NotReady):
        pool.choose(Ask(model="small"))


def test_what_a_worker_does_for_others_counts(clock: Clock) -> None:
    """Its own figure less what we have there, as two probes agree: a second balancer's jobs take places too."""
    worker = a_worker(clock)
    worker.begin(100)
    worker.learned(HEALTH.model_copy(update={"running_jobs": 4, "concurrency": 4}))
    assert (worker.foreign_jobs, worker.has_place) == (0, True)
    worker.learned(HEALTH.model_copy(update={"running_jobs": 4, "concurrency": 4}))
    assert (worker.foreign_jobs, worker.has_place, worker.occupancy, worker.backlog) == (3, False, 5 / 4, 25)


def test_new_process_is_not_kept_out_for_what_the_old_one_did(clock: Clock) -> None:
    """An ejection by requests ends when another process answers at the address."""
    worker = a_worker(clock)
    worker.learned(HEALTH.model_copy(update={"pid": 1}))
    worker.probe_succeeded()
    for _ in range(3):
        worker.failed("reset")
    worker.learned(HEALTH.model_copy(update={"pid": 2}))
    worker.probe_succeeded()
    assert state_of(worker) is State.half_open


def test_worker_that_says_it_is_full_is_left_alone_for_a_moment(clock: Clock) -> None:
    """For what it asks, a second at most: its places may be another balancer's."""
    worker = a_worker(clock)
    worker.probe_succeeded()
    worker.full_for(30)
    assert not worker.has_place
    clock.now += 1.1
    assert worker.has_place


def test_last_worker_is_not_ejected_by_its_trial(clock: Clock) -> None:
    """It is all there is: a failed trial degrades it, and the next request may go there."""
    pool = a_pool(clock, 1)
    worker = pool.workers[0]
    for _ in range(2):
        worker.probe_failed("slow")
    worker.probe_succeeded()
    worker.failed("it answered 500")
    assert state_of(worker) is State.degraded
    assert pool.choose(Ask()) is worker


def test_failing_requests_do_not_break_off_the_others(clock: Clock) -> None:
    """Who waits for a first chunk is woken for a worker that is gone or stuck, not for one that answers errors."""
    worker, told = a_worker(clock), []
    worker.probe_succeeded()
    with worker.watched(lambda: told.append("lost")):
        for _ in range(3):
            worker.failed("it answered 500")
    assert (state_of(worker) is State.ejected, told) == (True, [])
