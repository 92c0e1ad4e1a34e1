"""Workers' states and the choice between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.policy import RoundRobin
from balancer.pool import State, Worker, WorkerPool
from fleet.errors import NotReady


def pool(count: int = 3, rise: int = 1, fall: int = 2) -> WorkerPool:
    return WorkerPool([f"http://w{n}" for n in range(count)], RoundRobin(), rise=rise, fall=fall)


def test_worker_becomes_ready_after_enough_good_probes() -> None:
    """`rise` good probes in a row, and a bad one between them starts the count again."""
    worker = Worker("w", "http://w", rise=2, fall=2)
    worker.probe_succeeded()
    worker.probe_failed("no")
    worker.probe_succeeded()
    before = worker.state
    worker.probe_succeeded()
    assert (before, worker.state, worker.reason) == (State.starting, State.ready, None)


def test_worker_is_ejected_after_enough_bad_probes_and_comes_back() -> None:
    """`fall` bad probes eject it with the reason; `rise` good ones bring it back."""
    worker = Worker("w", "http://w", rise=1, fall=2)
    worker.probe_succeeded()
    worker.probe_failed("slow")
    assert worker.state is State.ready
    worker.probe_failed("gone")
    assert (worker.state, worker.reason) == (State.ejected, "gone")
    worker.probe_succeeded()
    assert worker.state is State.ready


def test_refused_connection_ejects_at_once() -> None:
    """Nobody listening is certain knowledge."""
    worker = Worker("w", "http://w", rise=1, fall=5)
    worker.probe_succeeded()
    worker.refused_connection("refused")
    assert worker.state is State.ejected


def test_in_flight_returns_to_zero_on_every_way_out() -> None:
    """The count falls whether a request ends well or not."""
    worker = Worker("w", "http://w", rise=1, fall=1)
    with worker.serving():
        assert worker.in_flight == 1
    with pytest.raises(KeyError), worker.serving():
        raise KeyError
    assert (worker.in_flight, worker.requests) == (0, 2)


def test_empty_choice_is_a_typed_error() -> None:
    """Nobody ready, or all ready ones tried already."""
    three = pool()
    with pytest.raises(NotReady):
        three.choose()
    three.workers[0].probe_succeeded()
    with pytest.raises(NotReady):
        three.choose(excluding=[three.workers[0]])


@given(steps=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=60))
def test_round_robin_is_fair_among_the_able(steps: list[set[int]]) -> None:
    """The one chosen is the first able one after the last one chosen, going round."""
    policy, everyone, last = RoundRobin(), list("abcde"), -1
    for able in steps:
        chosen = everyone.index(policy.choose([everyone[n] for n in sorted(able)], everyone, again=False))
        assert chosen == next(n % 5 for n in range(last + 1, last + 6) if n % 5 in able)
        last = chosen
