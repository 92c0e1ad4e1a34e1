"""A WebSocket passed through to a worker, message by message, each side at the pace of the other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import structlog
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from balancer.admission import Admission
from balancer.asks import ticket_of
from balancer.calls import quoted
from balancer.metrics import BalancerMetrics
from balancer.passage import Passage
from balancer.policy import Ask
from balancer.pool import WorkerPool
from balancer.retries import RetryBudget
from balancer.settings import BalancerSettings
from balancer.worker import Worker
from fleet.asgi import ClientGone
from fleet.contract import REQUEST_ID_HEADER
from fleet.error_answers import from_response
from fleet.errors import RouteNotFound, UpstreamFailed
from fleet.routes import STREAM_PATH
from fleet.server import MESSAGE_LIMIT

log = structlog.get_logger()

_PASSED_ON = ("authorization", "user-agent", "accept-language", "traceparent", "tracestate", "baggage")
_WORTH_ANOTHER_WORKER = frozenset({429, 502, 503, 504})
_TOLD_WHEN = frozenset({429, 503})
_RETRY_AFTER_S = 1.0

_WAITING_MESSAGES = 4
"""Messages of a worker that may wait for a slow listener here; then its connection is read no further."""

_CLOSE_TIMEOUT_S = 1.0
"""What the other side gets to say goodbye; sound on its way may keep it from that."""

_UNSENDABLE_CODES = frozenset({CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE})


class SocketProxy:
    """The ASGI endpoint of all WebSockets. A worker is settled on when it has accepted the connection."""

    def __init__(
        self,
        pool: WorkerPool,
        admission: Admission,
        budget: RetryBudget,
        metrics: BalancerMetrics,
        settings: BalancerSettings,
    ) -> None:
        self._pool, self._admission, self._metrics = pool, admission, metrics
        self._max_attempts = settings.max_attempts
        self._connect_timeout_s, self._write_timeout_s = settings.connect_timeout_s, settings.write_timeout_s
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != STREAM_PATH:
            raise RouteNotFound(f"there is nothing at {scope['path']}")
        passage = Passage()
        try:
            await receive()  # "websocket.connect"
            await self._relay(scope, receive, send, passage)
        except BaseException as error:
            passage.ended_by(error)
            raise
        finally:
            self._metrics.ended(passage)
            scope["state"]["log"] = passage.told()

    async def _relay(self, scope: Scope, receive: Receive, send: Send, passage: Passage) -> None:
        async with AsyncExitStack() as stack:
            worker, upstream = await self._connected(scope, receive, passage, stack)
            headers = [(b"x-worker", worker.name.encode())]
            await send({"type": "websocket.accept", "subprotocol": upstream.subprotocol, "headers": headers})
            await _pass_both_ways(upstream, worker, receive, partial(_written, send, self._write_timeout_s))
            passage.outcome = "ok"

    async def _connected(
        self, scope: Scope, receive: Receive, passage: Passage, stack: AsyncExitStack
    ) -> tuple[Worker, ClientConnection]:
        """The first worker that accepts; `stack` holds the connection and its place.

        Raises what the last one answered, `NotReady`, `Overloaded`, or `ClientGone`.
        """
        ticket = ticket_of(scope, Ask())
        while True:
            tried = passage.tried
            again = replace(ticket, ask=replace(ticket.ask, again=bool(tried)), excluding=tuple(tried))
            async with AsyncExitStack() as held:
                worker = await _while_it_waits(receive, held.enter_async_context(self._admission.place(again)))
                passage.placed(worker)
                last_chance = (
                    len(tried) == self._max_attempts
                    or not self._budget.allows
                    or not self._pool.serving(excluding=tried)
                )
                try:
                    upstream = await self._connect(worker, scope)
                except InvalidStatus as refusal:
                    status = refusal.response.status_code
                    failure = from_response(status, _json(refusal.response.body))
                    failure.retry_after = _RETRY_AFTER_S if status in _TOLD_WHEN else None
                    if status not in _WORTH_ANOTHER_WORKER or last_chance:
                        raise failure from refusal
                except (OSError, InvalidHandshake, ConnectionClosed) as error:
                    said = str(error) or type(error).__name__
                    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                        worker.failures += 1
                        worker.refused(said)
                    else:
                        worker.failed(said)
                    failure = UpstreamFailed(f"{worker.name} does not answer")
                    if last_chance:
                        raise failure from error
                else:
                    held.push_async_callback(upstream.close)
                    stack.push_async_exit(held.pop_all())
                    return worker, upstream
            self._budget.retried()
            self._metrics.retried(failure)

    async def _connect(self, worker: Worker, scope: Scope) -> ClientConnection:
        query = "?" + quoted(scope["query_string"]) if scope["query_string"] else ""
        headers = [(name, value) for name, value in _decoded(scope["headers"]) if name in _PASSED_ON]
        return await connect(
            "ws" + worker.url.removeprefix("http") + STREAM_PATH + query,
            additional_headers=[*headers, (REQUEST_ID_HEADER, scope["state"]["request_id"])],
            subprotocols=[Subprotocol(name) for name in scope["subprotocols"] if name] or None,
            user_agent_header=None,
            compression=None,
            max_size=MESSAGE_LIMIT,
            max_queue=_WAITING_MESSAGES,
            open_timeout=self._connect_timeout_s,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT_S,
            proxy=None,
        )


async def _while_it_waits(receive: Receive, place: Coroutine[Any, Any, Worker]) -> Worker:
    """The place, unless the caller leaves before there is one: nothing else can come from it yet."""
    waiting, gone = asyncio.ensure_future(place), asyncio.ensure_future(receive())
    try:
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientGone
        return waiting.result()
    finally:
        gone.cancel()
        waiting.cancel()
        await asyncio.wait({waiting, gone})


async def _written(send: Send, limit_s: float, message: Message) -> None:
    """Raises `ClientGone` for a listener that takes nothing for so long that it must be gone."""
    try:
        async with asyncio.timeout(limit_s):
            await send(message)
    except TimeoutError:
        raise ClientGone from None


async def _pass_both_ways(upstream: ClientConnection, worker: Worker, receive: Receive, send: Send) -> None:
    """Until one side closes. Raises `ClientGone`, or `UpstreamFailed` for a worker that is lost."""
    to_worker = asyncio.create_task(_pass_on(upstream, receive))
    to_caller = asyncio.create_task(_pass_back(upstream, worker, send))
    try:
        await asyncio.wait({to_worker, to_caller}, return_when=asyncio.FIRST_COMPLETED)
        (to_caller if to_caller.done() else to_worker).result()
    finally:
        to_worker.cancel()
        to_caller.cancel()
        await asyncio.wait({to_worker, to_caller})


async def _pass_on(upstream: ClientConnection, receive: Receive) -> None:
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        try:
            await upstream.send(message["bytes"] if text is None else text)
        except ConnectionClosed:
            await asyncio.Future()  # why it was closed is told by whoever reads from it
    raise ClientGone


async def _pass_back(upstream: ClientConnection, worker: Worker, send: Send) -> None:
    try:
        while True:
            message = await upstream.recv()
            worker.progressed()
            kind = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", kind: message})
    except ConnectionClosed as closed:
        if closed.rcvd is None:
            worker.failed(f"a WebSocket was lost: {closed}")
            log.warning("worker_lost", worker=worker.name, error=str(closed))
            raise UpstreamFailed(f"{worker.name} was lost") from closed
        code = CloseCode.NORMAL_CLOSURE if closed.rcvd.code in _UNSENDABLE_CODES else closed.rcvd.code
        await send({"type": "websocket.close", "code": int(code), "reason": closed.rcvd.reason})


def _decoded(headers: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _json(body: bytes | bytearray | None) -> Any:
    try:
        return json.loads(body or b"")
    except ValueError:
        return None
