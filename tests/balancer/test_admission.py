"""Who gets a place, who waits, and who is told to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from balancer.admission import Admission, Priority, Ticket
from balancer.policy import Ask, RoundRobin
from balancer.pool import WorkerPool
from fleet.errors import NotReady, Overloaded
from tests.balancer.faulty import HEALTH


def a_pool(*places: int) -> WorkerPool:
    pool = WorkerPool(RoundRobin())
    pool.sync("settings", [f"http://w{n}" for n in range(len(places))])
    for worker, count in zip(pool.workers, places, strict=True):
        worker.learned(HEALTH.model_copy(update={"concurrency": count}))
        worker.probe_succeeded()
    return pool


class Callers:
    """Requests that wait for a place, keep it until they are told to go, and leave the order in which they had it."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def come(self, name: str, ticket: Ticket) -> None:
        self._leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, ticket))
        await asyncio.sleep(0)

    async def _stay(self, name: str, ticket: Ticket) -> None:
        async with self._admission.place(ticket):
            self.served.append(name)
            await self._leave[name].wait()

    async def go(self, name: str) -> None:
        self._leave[name].set()
        await self.tasks[name]
        for _ in range(3):
            await asyncio.sleep(0)


async def all_served(admission: Admission, arrivals: Sequence[tuple[str, Ticket]]) -> list[str]:
    """The order in which the one place is given to these, who have come one after the other while it was taken."""
    callers = Callers(admission)
    await callers.come("first", Ticket(Ask()))
    for name, ticket in arrivals:
        await callers.come(name, ticket)
    while len(callers.served) <= len(arrivals):
        await callers.go(callers.served[-1])
    await callers.go(callers.served[-1])
    return callers.served[1:]


def admission_over(pool: WorkerPool, *, max_queue: int = 100, max_wait_s: float = 10) -> Admission:
    return Admission(pool, max_queue=max_queue, max_wait_s=max_wait_s)


async def test_callers_take_turns_however_much_each_has_waiting() -> None:
    """Ten requests of one caller do not delay the first of another by more than one."""
    crowd = [(f"a{n}", Ticket(Ask(), caller="a")) for n in range(4)]
    order = await all_served(
        admission_over(a_pool(1)), [*crowd, ("b0", Ticket(Ask(), caller="b")), ("b1", Ticket(Ask(), caller="b"))]
    )
    assert order == ["a0", "b0", "a1", "b1", "a2", "a3"]


async def test_interactive_requests_go_first_and_batch_ones_do_not_starve() -> None:
    """Seven to one while both wait."""
    batch = [(f"batch{n}", Ticket(Ask(), Priority.batch)) for n in range(2)]
    interactive = [(f"i{n}", Ticket(Ask())) for n in range(10)]
    order = await all_served(admission_over(a_pool(1)), [*batch, *interactive])
    assert order == [*(f"i{n}" for n in range(7)), "batch0", "i7", "i8", "i9", "batch1"]


async def test_request_that_is_tried_again_goes_before_all_others() -> None:
    """It has waited already, and whoever sent it has been promised a place."""
    pool = a_pool(1)
    order = await all_served(
        admission_over(pool, max_queue=1), [("new", Ticket(Ask())), ("again", Ticket(Ask(again=True), caller="z"))]
    )
    assert order == ["again", "new"]


async def test_queue_is_bounded_and_says_when_to_come_again() -> None:
    """One more than there is room for is refused at once; one that waits too long is refused then."""
    admission = admission_over(a_pool(1), max_queue=2, max_wait_s=0.05)
    callers = Callers(admission)
    await callers.come("served", Ticket(Ask()))
    for name in ("waits", "waits too"):
        await callers.come(name, Ticket(Ask()))
    with pytest.raises(Overloaded) as refused:
        await admission.place(Ticket(Ask())).__aenter__()
    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 60
    with pytest.raises(Overloaded, match="no place became free"):
        await callers.tasks["waits"]
    with pytest.raises(Overloaded):
        await callers.tasks["waits too"]
    assert admission.waiting == {"interactive": 0, "batch": 0}
    await callers.go("served")


async def test_nobody_waits_when_nobody_serves() -> None:
    """A request that comes is refused at once, and so are those that wait when the last worker goes."""
    pool = a_pool(1)
    admission = admission_over(pool)
    callers = Callers(admission)
    await callers.come("served", Ticket(Ask()))
    await callers.come("waits", Ticket(Ask()))
    pool.workers[0].refused("gone")
    with pytest.raises(NotReady):
        await callers.tasks["waits"]
    with pytest.raises(NotReady):
        await admission.place(Ticket(Ask())).__aenter__()
    await callers.go("served")
    assert (pool.workers[0].jobs, pool.workers[0].in_flight, pool.workers[0].pending_chars) == (0, 0, 0)


async def test_worker_that_comes_back_serves_those_who_wait() -> None:
    """Without anybody having to leave first."""
    pool = a_pool(1, 1)
    pool.workers[1].drain("x")
    callers = Callers(admission_over(pool))
    await callers.come("served", Ticket(Ask()))
    await callers.come("waits", Ticket(Ask()))
    assert callers.served == ["served"]
    pool.workers[1].resume()
    await asyncio.sleep(0.01)
    assert callers.served == ["served", "waits"]
    for name in callers.served:
        await callers.go(name)


async def test_requests_of_a_full_model_do_not_hold_up_the_others() -> None:
    """Each model has its own workers, and the queue is one."""
    pool = WorkerPool(RoundRobin(), mixed_models=True)
    pool.sync("settings", ["http://w0", "http://w1"])
    for worker, model in zip(pool.workers, ("small", "large"), strict=True):
        worker.learned(HEALTH.model_copy(update={"model": model, "concurrency": 1}))
        worker.probe_succeeded()
    callers = Callers(admission_over(pool))
    for name in ("small 1", "small 2", "large 1", "large 2"):
        await callers.come(name, Ticket(Ask(model=name.split()[0])))
    await asyncio.sleep(0)
    assert callers.served == ["small 1", "large 1"]
    await callers.go("large 1")
    assert callers.served == ["small 1", "large 1", "large 2"]
    for name in ("small 1", "large 2", "small 2"):
        await callers.go(name)


@pytest.mark.parametrize("moment", ["while it waits", "as it is granted"])
async def test_caller_that_leaves_takes_no_place_along(moment: str) -> None:
    """Whether it is cancelled while it waits or in the very moment in which its place is granted."""
    pool = a_pool(1)
    admission = admission_over(pool)
    callers, place = Callers(admission), admission.place(Ticket(Ask(chars=7)))
    await place.__aenter__()
    await callers.come("leaves", Ticket(Ask(chars=9)))
    await callers.come("next", Ticket(Ask(chars=11)))
    if moment == "as it is granted":
        await place.__aexit__(None, None, None)  # its place has been granted, and nobody has noticed yet
    callers.tasks["leaves"].cancel()
    with pytest.raises(asyncio.CancelledError):
        await callers.tasks["leaves"]
    if moment == "while it waits":
        await place.__aexit__(None, None, None)
    await asyncio.sleep(0.01)
    assert callers.served == ["next"]
    assert pool.workers[0].pending_chars == 11
    await callers.go("next")
    assert (pool.workers[0].jobs, pool.workers[0].pending_chars, pool.workers[0].in_flight) == (0, 0, 0)
