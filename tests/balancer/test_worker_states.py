"""What a worker's probes and requests make of its state."""

from __future__ import annotations

import pytest

from balancer.policy import Ask
from balancer.worker import State
from tests.balancer.faulty import HEALTH
from tests.balancer.pools import Clock, a_pool, a_worker, state_of


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
