"""Who is let through to a worker now, who waits, and who is told to come again.

One bounded queue for the fleet. Interactive requests go before batch ones, but for one in eight; among callers of one
class each has its turn, however many requests another has waiting.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum

from balancer.policy import Ask
from balancer.pool import WorkerPool
from balancer.worker import Clock, Worker
from fleet.errors import NotReady, Overloaded

_BATCH_TURN = 8
"""While both classes wait, every so manyth place goes to a batch request, so that none waits for ever."""

_RATE_OVER_S = 10.0
_LONGEST_RETRY_S = 60


class Priority(StrEnum):
    interactive = "interactive"
    batch = "batch"


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that wants a place. `excluding` are the workers it has been at; one that has been at any goes first."""

    ask: Ask
    priority: Priority = Priority.interactive
    caller: str = ""
    excluding: Sequence[Worker] = ()


@dataclass(eq=False, slots=True)
class _Waiting:
    ticket: Ticket
    granted: asyncio.Future[Worker]


class _Line:
    """Those of one class who wait: callers take turns, each one's own are in order."""

    def __init__(self) -> None:
        self._callers: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self.length = 0

    def __iter__(self) -> Iterator[_Waiting]:
        """As they are now, in the order of their turns."""
        columns = [list(column) for column in self._callers.values()]
        for row in range(max(map(len, columns), default=0)):
            yield from (column[row] for column in columns if row < len(column))

    def add(self, waiting: _Waiting) -> None:
        caller = waiting.ticket.caller
        column = self._callers.setdefault(caller, deque())
        if waiting.ticket.ask.again:
            column.appendleft(waiting)
            self._callers.move_to_end(caller, last=False)
        else:
            column.append(waiting)
        self.length += 1

    def remove(self, waiting: _Waiting, *, served: bool) -> None:
        caller = waiting.ticket.caller
        column = self._callers[caller]
        column.remove(waiting)
        self.length -= 1
        if not column:
            del self._callers[caller]
        elif served:
            self._callers.move_to_end(caller)  # the others' turn


class Admission:
    """`max_queue` requests wait at most, each `max_wait_s` seconds at most."""

    def __init__(self, pool: WorkerPool, *, max_queue: int, max_wait_s: float, clock: Clock = time.monotonic) -> None:
        self._pool, self._max_queue, self._max_wait_s, self._clock = pool, max_queue, max_wait_s, clock
        self._lines = {priority: _Line() for priority in Priority}
        self._grants = 0
        self._given_back: deque[float] = deque(maxlen=256)
        pool.listeners.append(self._pump)

    @property
    def waiting(self) -> dict[str, int]:
        """How many wait, by class."""
        return {str(priority): line.length for priority, line in self._lines.items()}

    async def acquire(self, ticket: Ticket) -> Worker:
        """A place at a worker, as soon as there is one; `release` must follow.

        Raises `NotReady` when no worker serves, `Overloaded` when the queue is full or the wait was too long.
        """
        return self._at_once(ticket) or await self._in_turn(ticket)

    def release(self, worker: Worker, ticket: Ticket) -> None:
        """The place is free for who waits next."""
        worker.end(ticket.ask.chars)
        self._given_back.append(self._clock())
        if self._pool.leaving:
            self._pool.changed()  # it may have been the last of a worker that was taken out
        elif self._queued:
            self._pump()

    @asynccontextmanager
    async def place(self, ticket: Ticket) -> AsyncIterator[Worker]:
        """A place for as long as the context lasts."""
        worker = await self.acquire(ticket)
        try:
            yield worker
        finally:
            self.release(worker, ticket)

    def _at_once(self, ticket: Ticket) -> Worker | None:
        queued = self._queued
        if queued and not ticket.ask.again and self._pool.serving(ticket.ask, excluding=ticket.excluding):
            worker = None
        else:
            worker = self._pool.choose(ticket.ask, excluding=ticket.excluding)
        if worker is not None:
            worker.begin(ticket.ask.chars)
        elif queued >= self._max_queue and not ticket.ask.again:
            raise Overloaded(f"{queued} requests are waiting already", retry_after=self._retry_after_s())
        return worker

    async def _in_turn(self, ticket: Ticket) -> Worker:
        waiting = _Waiting(ticket, asyncio.get_running_loop().create_future())
        self._lines[ticket.priority].add(waiting)
        self._pump()  # those who wait may all wait for another model
        worker = None
        try:
            async with asyncio.timeout(self._max_wait_s):
                worker = await waiting.granted
        except TimeoutError:
            message = f"no place became free within {self._max_wait_s:g} s"
            raise Overloaded(message, retry_after=self._retry_after_s()) from None
        else:
            return worker
        finally:
            if worker is None:
                self._withdraw(waiting)

    def _withdraw(self, waiting: _Waiting) -> None:
        """Wait no longer. A place that was granted in the very moment in which its request ended goes to the next."""
        granted, ticket = waiting.granted, waiting.ticket
        if not granted.done() or granted.cancelled():
            self._lines[ticket.priority].remove(waiting, served=False)
        elif granted.exception() is None:
            self.release(granted.result(), ticket)

    def _pump(self) -> None:
        """Give free places to those whose turn it is."""
        full: set[str | None] = set()
        """Models that no worker has a place for."""
        for waiting in self._in_order():
            ticket = waiting.ticket
            kind = self._pool.kind_of(ticket.ask)
            if kind in full and not ticket.excluding:
                continue
            try:
                worker = self._pool.choose(ticket.ask, excluding=ticket.excluding)
            except NotReady as error:
                self._lines[ticket.priority].remove(waiting, served=False)
                waiting.granted.set_exception(error)
                continue
            if worker is None:
                if not ticket.excluding:
                    full.add(kind)
                continue
            worker.begin(ticket.ask.chars)
            self._grants += 1
            self._lines[ticket.priority].remove(waiting, served=True)
            waiting.granted.set_result(worker)

    def _in_order(self) -> Iterator[_Waiting]:
        lines = [iter(self._lines[priority]) for priority in Priority]
        while True:
            first, second = reversed(lines) if self._grants % _BATCH_TURN == _BATCH_TURN - 1 else lines
            waiting = next(first, None) or next(second, None)
            if waiting is None:
                return
            if not waiting.granted.done():
                yield waiting

    @property
    def _queued(self) -> int:
        return sum(line.length for line in self._lines.values())

    def _retry_after_s(self) -> int:
        """When those who wait will have been served, at the pace of the last seconds."""
        now = self._clock()
        recent = sum(now - at < _RATE_OVER_S for at in self._given_back)
        pace = max(recent / _RATE_OVER_S, 1.0)
        return min(_LONGEST_RETRY_S, max(1, math.ceil((self._queued + 1) / pace)))
