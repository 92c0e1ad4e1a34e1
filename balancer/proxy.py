"""A request passed to a worker and its answer passed back, chunk by chunk.

Until the first body chunk is here the request may be tried on another worker; from then on the caller has begun to
hear, and a worker that dies cuts the answer short.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx2
from starlette.types import Receive, Scope, Send
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from balancer.bodies import received
from balancer.metrics import BalancerMetrics
from balancer.pool import Worker, WorkerPool
from balancer.settings import BalancerSettings
from balancer.upstream import Call, Reply, TryAnother, describe, open_reply
from fleet.asgi import ClientGone, CutShort, while_client_stays
from fleet.errors import FleetError

_KEEPALIVE_EXPIRY_S = 20
"""Shorter than the workers' keep-alive, so that a connection is never used just as its worker closes it."""


class Proxy:
    """The ASGI endpoint behind which all workers stand."""

    def __init__(
        self, pool: WorkerPool, metrics: BalancerMetrics, settings: BalancerSettings, stopping: asyncio.Event
    ) -> None:
        self._pool, self._metrics, self._stopping = pool, metrics, stopping
        self._max_attempts = settings.max_attempts
        self._client = httpx2.AsyncClient(
            timeout=httpx2.Timeout(settings.idle_timeout_s, connect=settings.connect_timeout_s),
            limits=httpx2.Limits(
                max_connections=None, max_keepalive_connections=None, keepalive_expiry=_KEEPALIVE_EXPIRY_S
            ),
            trust_env=False,
        )
        self._client.headers.clear()

    async def aclose(self) -> None:
        await self._client.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        passage = Passage()
        try:
            async with received(receive) as body:
                await while_client_stays(receive, self._relay(Call.of(scope, body), passage, send))
        except ClientGone:
            passage.outcome = "client_gone"
            raise
        except CutShort:
            passage.outcome = "cut_short"
            raise
        except FleetError as error:
            passage.outcome = "unserved" if error.status >= 500 else "refused"
            raise
        finally:
            self._metrics.ended(passage.worker_name, passage.outcome, passage.age_s)
            scope["state"]["log"] = {"worker": passage.worker_name, "attempts": len(passage.tried)}

    async def _relay(self, call: Call, passage: Passage, send: Send) -> None:
        async with AsyncExitStack() as stack:
            reply = await self._first_reply(call, passage, stack)
            passage.answered(reply.status)
            self._metrics.first_byte(passage.age_s)
            await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            endless = call.method == "GET" and reply.is_events
            rest = _until(self._stopping, reply.rest) if endless else reply.rest
            chunk = reply.first
            try:
                while chunk:
                    self._metrics.sent(len(chunk))
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    chunk = await anext(rest, b"")
            except httpx2.HTTPError as error:
                reply.worker.failures += 1
                raise CutShort(f"{reply.worker.name}: {describe(error)}") from error
            await send({"type": "http.response.body", "body": b""})

    async def _first_reply(self, call: Call, passage: Passage, stack: AsyncExitStack) -> Reply:
        """A reply whose first chunk is here, from the first worker that gives one; `stack` holds it open.

        Raises `NotReady` when no worker is left to try, or the last worker's failure after `max_attempts` of them.
        """
        tried = passage.tried
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._max_attempts), retry=retry_if_exception_type(TryAnother), reraise=True
        )
        try:
            async for attempt in attempts:
                with attempt:
                    worker = self._pool.choose(excluding=tried)
                    if tried:
                        self._metrics.retried()
                    tried.append(worker)
                    last_chance = len(tried) == self._max_attempts or not self._pool.ready(excluding=tried)
                    return await stack.enter_async_context(
                        open_reply(self._client, worker, call, last_chance=last_chance)
                    )
        except TryAnother as last:
            raise last.error from last
        raise AssertionError("retrying ends with a reply or an error")


async def _until(stopping: asyncio.Event, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces that come before we are told to stop."""
    told = asyncio.ensure_future(stopping.wait())
    try:
        while not told.done():
            piece = asyncio.ensure_future(anext(pieces, b""))
            try:
                await asyncio.wait((piece, told), return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    return
                yield await piece
            finally:
                piece.cancel()
    finally:
        told.cancel()


class Passage:
    """One request on its way through: for the figures and the log."""

    def __init__(self) -> None:
        self.tried: list[Worker] = []
        self.outcome = "failed"  # until something better is known
        self._began_at = time.monotonic()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._began_at

    @property
    def worker_name(self) -> str:
        return self.tried[-1].name if self.tried else "none"

    def answered(self, status: int) -> None:
        self.outcome = "ok" if status < 400 else "refused" if status < 500 else "failed"
