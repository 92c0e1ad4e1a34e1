"""The pool's membership, and who of it may be asked."""

from __future__ import annotations

import pytest

from balancer.policy import Ask
from balancer.worker import State
from fleet.errors import NotReady
from tests.balancer.faulty import HEALTH
from tests.balancer.pools import Clock, a_pool, a_worker, state_of


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
