"""A WebSocket passed through to a worker, message by message, each side at the pace of the other."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from balancer.metrics import BalancerMetrics
from balancer.pool import Worker, WorkerPool
from balancer.proxy import Passage
from balancer.settings import BalancerSettings
from fleet.asgi import ClientGone
from fleet.contract import REQUEST_ID_HEADER
from fleet.error_answers import from_response
from fleet.errors import FleetError, RouteNotFound, UpstreamFailed
from fleet.routes import STREAM_PATH
from fleet.server import MESSAGE_LIMIT

log = structlog.get_logger()

_PASSED_ON = ("authorization", "user-agent", "accept-language")
_WORTH_ANOTHER_WORKER = frozenset({429, 502, 503, 504})

_WAITING_MESSAGES = 4
"""Messages of a worker that may wait for a slow listener here; then its connection is read no further."""

_CLOSE_TIMEOUT_S = 1.0
"""What the other side gets to say goodbye; sound on its way may keep it from that."""

_UNSENDABLE_CODES = frozenset({CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE, CloseCode.TLS_HANDSHAKE})


class SocketProxy:
    """The ASGI endpoint of all WebSockets. A worker is settled on when it has accepted the connection."""

    def __init__(self, pool: WorkerPool, metrics: BalancerMetrics, settings: BalancerSettings) -> None:
        self._pool, self._metrics = pool, metrics
        self._max_attempts = settings.max_attempts
        self._connect_timeout_s = settings.connect_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != STREAM_PATH:
            raise RouteNotFound(f"there is nothing at {scope['path']}")
        passage = Passage()
        try:
            await receive()  # "websocket.connect"
            await self._relay(scope, receive, send, passage)
        except ClientGone:
            passage.outcome = "client_gone"
            raise
        except FleetError as error:
            passage.outcome = "unserved" if error.status >= 500 else "refused"
            raise
        finally:
            self._metrics.ended(passage.worker_name, passage.outcome, passage.age_s)
            scope["state"]["log"] = {"worker": passage.worker_name, "attempts": len(passage.tried)}

    async def _relay(self, scope: Scope, receive: Receive, send: Send, passage: Passage) -> None:
        worker, upstream = await self._connected(scope, passage)
        try:
            with worker.serving():
                headers = [(b"x-worker", worker.name.encode())]
                await send({"type": "websocket.accept", "subprotocol": upstream.subprotocol, "headers": headers})
                await _pass_both_ways(upstream, worker, receive, send)
                passage.outcome = "ok"
        finally:
            await upstream.close()

    async def _connected(self, scope: Scope, passage: Passage) -> tuple[Worker, ClientConnection]:
        """The first worker that accepts. Raises what the last one answered, or `NotReady`."""
        while True:
            worker = self._pool.choose(excluding=passage.tried)
            if passage.tried:
                self._metrics.retried()
            passage.tried.append(worker)
            last_chance = len(passage.tried) == self._max_attempts or not self._pool.ready(excluding=passage.tried)
            try:
                return worker, await self._connect(worker, scope)
            except InvalidStatus as refusal:
                status = refusal.response.status_code
                if status not in _WORTH_ANOTHER_WORKER or last_chance:
                    raise from_response(status, _json(refusal.response.body)) from refusal
            except (OSError, InvalidHandshake, ConnectionClosed) as error:
                worker.failures += 1
                worker.refused_connection(str(error) or type(error).__name__)
                if last_chance:
                    raise UpstreamFailed(f"{worker.name} does not answer") from error

    async def _connect(self, worker: Worker, scope: Scope) -> ClientConnection:
        query = "?" + scope["query_string"].decode("ascii", "replace") if scope["query_string"] else ""
        headers = [(name, value) for name, value in _decoded(scope["headers"]) if name in _PASSED_ON]
        return await connect(
            "ws" + worker.url.removeprefix("http") + STREAM_PATH + query,
            additional_headers=[*headers, (REQUEST_ID_HEADER, scope["state"]["request_id"])],
            subprotocols=[Subprotocol(name) for name in scope["subprotocols"]] or None,
            user_agent_header=None,
            compression=None,
            max_size=MESSAGE_LIMIT,
            max_queue=_WAITING_MESSAGES,
            open_timeout=self._connect_timeout_s,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT_S,
            proxy=None,
        )


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
            kind = "text" if isinstance(message, str) else "bytes"
            await send({"type": "websocket.send", kind: message})
    except ConnectionClosed as closed:
        if closed.rcvd is None:
            worker.failures += 1
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
