"""A request passed to a worker and its answer passed back, chunk by chunk.

Until the first body chunk is here the request may be tried on another worker; from then on the caller has begun to
hear, and a worker that dies cuts the answer short.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from functools import partial

from starlette.types import Receive, Scope, Send
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from balancer.admission import Admission, Ticket
from balancer.asks import ask_of, ticket_of
from balancer.calls import Call
from balancer.metrics import BalancerMetrics
from balancer.passage import Passage
from balancer.policy import Ask
from balancer.pool import WorkerPool
from balancer.retries import RetryBudget
from balancer.settings import BalancerSettings
from balancer.stalls import Stall
from balancer.upstream import LOSSES, Reply, TryAnother, Upstream, describe
from balancer.worker import Worker
from fleet.asgi import CutShort, while_client_stays
from fleet.bodies import received
from fleet.errors import UpstreamFailed
from fleet.routes import is_speech
from fleet.sse import WholeEvents, error_event

Release = Callable[[], None]
"""Gives a place back."""

_ANYTHING = Ask()
"""What is no speech: any worker will do, whatever it has to do."""


class Proxy:
    """The ASGI endpoint behind which all workers stand."""

    def __init__(
        self,
        pool: WorkerPool,
        admission: Admission,
        budget: RetryBudget,
        metrics: BalancerMetrics,
        settings: BalancerSettings,
        *,
        stopping: asyncio.Event,
    ) -> None:
        self._pool, self._admission, self._metrics, self._stopping = pool, admission, metrics, stopping
        self._max_attempts, self._write_timeout_s = settings.max_attempts, settings.write_timeout_s
        self._budget = budget
        self._timeouts = {"connect_timeout_s": settings.connect_timeout_s, "idle_timeout_s": settings.idle_timeout_s}
        self._upstream: Upstream

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The connections to the workers last as long as the context."""
        self._upstream = Upstream(**self._timeouts)
        try:
            yield
        finally:
            await self._upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passage = Passage()
        try:
            with closing(await received(receive)) as body:
                call = Call.of(scope, body)
                ticket = ticket_of(scope, ask_of(scope, body)) if is_speech(scope) else None
                await while_client_stays(receive, self._relay(call, ticket, passage, send))
        except BaseException as error:
            passage.ended_by(error)
            raise
        finally:
            self._metrics.ended(passage)
            scope["state"]["log"] = passage.told()

    async def _relay(self, call: Call, ticket: Ticket | None, passage: Passage, send: Send) -> None:
        self._budget.requested()
        reply, release = await self._first_reply(call, ticket, passage)
        try:
            passage.answered(reply.status)
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            await self._stream(call, reply, passage, send)
        finally:
            reply.close()
            release()
        await send({"type": "http.response.body", "body": b""})

    async def _stream(self, call: Call, reply: Reply, passage: Passage, send: Send) -> None:
        """Raises `CutShort` for a reader that takes nothing for so long that it must be gone."""
        try:
            async with asyncio.timeout(None) as patience:
                with closing(Stall(self._write_timeout_s, partial(patience.reschedule, 0))) as writing:
                    await self._pass_on(call, reply, _Outgoing(send, passage, writing))
        except TimeoutError:
            if not patience.expired():
                raise
            raise CutShort(f"the caller took nothing for {self._write_timeout_s:g} s") from None

    async def _pass_on(self, call: Call, reply: Reply, outgoing: _Outgoing) -> None:
        endless = call.method == "GET" and reply.is_events
        following = partial(_next_before, self._stopping, reply) if endless else reply.next
        events = WholeEvents() if reply.is_events else None
        chunk = reply.first
        try:
            while chunk:
                await outgoing.write(events.add(chunk) if events else chunk)
                chunk = await following()
            if events is not None:
                await outgoing.write(events.rest())
        except LOSSES as error:
            reply.worker.failed(f"lost in mid-stream: {describe(error)}")
            lost = CutShort(f"{reply.worker.name}: {describe(error)}")
            if events is None:
                raise lost from error
            said = UpstreamFailed(f"{reply.worker.name} was lost")
            await outgoing.write(error_event(said, call.scope))
            outgoing.passage.ended_by(lost)

    async def _first_reply(self, call: Call, ticket: Ticket | None, passage: Passage) -> tuple[Reply, Release]:
        """A reply whose first chunk is here, from the first worker that gives one, and how to give its place back.

        Raises `NotReady` when no worker serves, `Overloaded` when there is no room to wait, or the last worker's
        failure when none is left to try, `max_attempts` were tried, or too many are being tried again already.
        """
        try:
            return await self._attempt(call, ticket, passage)
        except TryAnother as failure:
            if self._max_attempts == 1:
                raise failure.error from failure
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._max_attempts - 1), retry=retry_if_exception_type(TryAnother), reraise=True
        )
        try:
            async for attempt in attempts:
                with attempt:
                    return await self._attempt(call, ticket, passage)
        except TryAnother as last:
            raise last.error from last
        raise AssertionError("retrying ends with a reply or an error")

    async def _attempt(self, call: Call, ticket: Ticket | None, passage: Passage) -> tuple[Reply, Release]:
        """Raises `TryAnother` while another worker may be tried."""
        worker, release = await self._place(ticket, passage.tried)
        replied = False
        try:
            if passage.tried:
                self._budget.retried()
            passage.placed(worker)
            last_chance = self._is_last_chance(ticket, passage)
            try:
                reply = await self._upstream.reply(worker, call, last_chance=last_chance)
            except TryAnother as failure:
                if last_chance:
                    raise failure.error from failure
                self._metrics.retried(failure.error)
                raise
            replied = True
            return reply, release
        finally:
            if not replied:
                release()

    def _is_last_chance(self, ticket: Ticket | None, passage: Passage) -> bool:
        ask = None if ticket is None else ticket.ask
        return (
            len(passage.tried) == self._max_attempts
            or not self._budget.allows
            or not self._pool.serving(ask, excluding=passage.tried)
        )

    async def _place(self, ticket: Ticket | None, tried: Sequence[Worker]) -> tuple[Worker, Release]:
        """A worker to ask, with a place for speech, and how to give it back."""
        if ticket is not None:
            again = replace(ticket, ask=replace(ticket.ask, again=True), excluding=tuple(tried)) if tried else ticket
            worker = await self._admission.acquire(again)
            return worker, partial(self._admission.release, worker, again)
        found = self._pool.choose(replace(_ANYTHING, again=bool(tried)), excluding=tried, with_place=False)
        assert found is not None
        found.begin(None)
        return found, partial(found.end, None)


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """The body of an answer on its way to the caller."""

    send: Send
    passage: Passage
    writing: Stall

    async def write(self, chunk: bytes) -> None:
        if chunk:
            self.writing.begin()
            await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
            self.writing.end()
            self.passage.sent(len(chunk))


async def _next_before(stopping: asyncio.Event, reply: Reply) -> bytes:
    """The next chunk of a stream without an end; empty when we are told to stop."""
    chunk, told = asyncio.ensure_future(reply.next()), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((chunk, told), return_when=asyncio.FIRST_COMPLETED)
        return await chunk if chunk.done() else b""
    finally:
        chunk.cancel()
        told.cancel()
