"""The edge of both HTTP processes, as pure ASGI: request ids, bounded bodies, typed errors, one log line a request."""

from __future__ import annotations

import asyncio
import math
import re
import secrets
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import structlog
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.contract import REQUEST_ID_HEADER
from fleet.errors import (
    BadRequest,
    BodyTooLarge,
    FleetError,
    InternalError,
    MethodNotAllowed,
    RequestTimeout,
    UpgradeRequired,
)
from fleet.headers import header
from fleet.routes import STREAM_PATH, is_upload

log = structlog.get_logger()

_REQUEST_ID_NAME = REQUEST_ID_HEADER.encode()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DISCARD_LIMIT_S = 2.0
"""How long the rest of a refused body is read and thrown away so that its sender can still read the answer."""

_CLIENT_GONE_STATUS = 499
"""What nginx logs for a caller that left; never sent."""


class ClientGone(Exception):
    """The caller closed its connection; nobody is left to answer."""


class CutShort(Exception):
    """An answer that had begun cannot be finished; the connection is closed so that the caller can tell."""


def error_response(error: FleetError, request_id: str | None) -> JSONResponse:
    retry = {} if error.retry_after is None else {"retry-after": str(math.ceil(error.retry_after))}
    return JSONResponse(error.body(request_id), status_code=error.status, headers={**error.headers, **retry})


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """What a request's body may hold, in bytes, and how long it may take to arrive, in seconds."""

    max_bytes: int
    timeout_s: float


def request_id_of(given: str | None) -> str:
    """The caller's `X-Request-ID` when that is well formed, else a new one."""
    return given if given and _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


def identify(scope: Scope) -> str:
    """The request's id, set in its state."""
    request_id = request_id_of(header(scope, REQUEST_ID_HEADER))
    scope.setdefault("state", {})["request_id"] = request_id
    return request_id


class Edge:
    """The outermost layer of an application.

    Sets `scope["state"]["request_id"]` from the caller's `X-Request-ID` when that is well formed, else a new one, and
    returns it in the answer. Refuses a body above its limit with 413, and one that is not whole in time with 408;
    `uploads` are the limits of what `is_upload` tells. Turns a `FleetError` that arrives before the answer began into
    its JSON body.
    """

    def __init__(self, app: ASGIApp, *, bodies: BodyLimits, uploads: BodyLimits) -> None:
        self.app = app
        self.bodies = bodies
        self.uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self.uploads if is_upload(scope) else self.bodies)
        try:
            exchange.refuse_declared_oversize()
            _refuse_plain_http(scope)
            await self.app(scope, exchange.receive, exchange.send)
        except ClientGone:
            exchange.status, exchange.outcome = _CLIENT_GONE_STATUS, "client_gone"
        except CutShort as error:
            # Returning with the answer unfinished makes the server close the connection: an honest truncation.
            exchange.outcome = "cut_short"
            log.warning("answer_cut_short", reason=str(error), request_id=exchange.request_id)
        except FleetError as error:
            await exchange.answer_error(error)
        except Exception:  # The edge: what reaches it is a fault of ours, and must cost this one request only.
            log.exception("request_crashed", path=scope["path"], request_id=exchange.request_id)
            if exchange.status is None:
                await exchange.answer_error(InternalError("the server met an error of its own; its log says more"))
        finally:
            exchange.write_log_line()


def _refuse_plain_http(scope: Scope) -> None:
    """Where there is a WebSocket, and no route of HTTP."""
    if scope["path"] == STREAM_PATH:
        if scope["method"] not in ("GET", "HEAD"):
            message = f"{STREAM_PATH} does not take {scope['method']}"
            raise MethodNotAllowed(message).with_header("allow", "GET")
        raise UpgradeRequired(f"{STREAM_PATH} is a WebSocket: it is reached by a handshake, not by a plain request")


class _Exchange:
    """One request and its answer, observed on the way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: BodyLimits) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._max_body_bytes, self._body_timeout_s = limits.max_bytes, limits.timeout_s
        self._declared_bytes = header(scope, "content-length")
        self._body_bytes = 0
        self._body_deadline: float | None = None
        # A request without a body is complete from the start; HTTP/1.1 announces one by either of these.
        self._body_complete = self._declared_bytes in (None, "0") and header(scope, "transfer-encoding") is None
        self._started_at = time.monotonic()
        self._bytes_sent = 0
        self.status: int | None = None
        self.outcome = "ok"
        self.request_id = identify(scope)

    def refuse_declared_oversize(self) -> None:
        declared = self._declared_bytes
        if declared is None:
            return
        if not declared.isascii() or not declared.isdigit():
            raise BadRequest("Content-Length must be a number of bytes")
        if int(declared) > self._max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(f"the body may hold at most {self._max_body_bytes} bytes")

    async def receive(self) -> Message:
        if self._body_complete:  # What comes next is the caller's leaving, however long that takes.
            return await self._receive()
        if self._body_deadline is None:
            self._body_deadline = asyncio.get_running_loop().time() + self._body_timeout_s
        try:
            async with asyncio.timeout_at(self._body_deadline):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(f"the body did not arrive within {self._body_timeout_s:g} s") from None
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            self._body_complete = not message.get("more_body", False)
            if self._body_bytes > self._max_body_bytes:
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ours = [(_REQUEST_ID_NAME, self.request_id.encode())]
            if not self._body_complete:
                ours.append((b"connection", b"close"))
            set_here = {name for name, _ in ours}
            message["headers"] = [pair for pair in message.get("headers", ()) if pair[0] not in set_here] + ours
        else:
            self._bytes_sent += len(message.get("body", b""))
            if not self._body_complete and not message.get("more_body", False):
                await self._send({**message, "more_body": True})
                await self._discard_body()
                message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def answer_error(self, error: FleetError) -> None:
        self.outcome = error.code
        if self.status is not None:
            log.error("error_after_answer", code=error.code, message=error.message, request_id=self.request_id)
            return
        await error_response(error, self.request_id)(self._scope, self._receive, self.send)

    async def _discard_body(self) -> None:
        """Read what is still on its way: closing at once would reset the connection before our answer is read."""
        if (header(self._scope, "expect") or "").lower() == "100-continue" and self._body_bytes == 0:
            return  # The sender waits for our word before it sends anything.
        try:
            async with asyncio.timeout(_DISCARD_LIMIT_S):
                while not self._body_complete:
                    message = await self._receive()
                    self._body_complete = message["type"] != "http.request" or not message.get("more_body", False)
        except TimeoutError:
            return

    def write_log_line(self) -> None:
        if self._scope["path"] in _UNLOGGED:
            return
        log.info(
            "request",
            request_id=self.request_id,
            method=self._scope["method"],
            path=self._scope["path"],
            status=self.status,
            # What the edge saw comes first: a caller that leaves looks like a fault to those within.
            outcome=self.outcome if self.outcome != "ok" else self._scope["state"].get("outcome", "ok"),
            ms=round((time.monotonic() - self._started_at) * 1000, 1),
            bytes_sent=self._bytes_sent,
            **callers_key(self._scope),
            **self._scope["state"].get("log", {}),
        )


def callers_key(scope: Scope) -> dict[str, str]:
    """The name of the caller's key, for the log; nothing where none was needed."""
    return {"key": scope["state"]["key"]} if "key" in scope["state"] else {}


_UNLOGGED = {"/health", "/ready", "/metrics", "/stats"}


async def while_client_stays(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work`, which reads the body no more; cancel it and raise `ClientGone` if the caller leaves first.

    A server that only sends never notices a caller that goes before the headers do.
    """
    gone = asyncio.create_task(_disconnected(receive), name="watch-client")
    try:
        async with asyncio.timeout(None) as stay:

            def leave(_: asyncio.Task[None]) -> None:
                if not stay.expired():
                    stay.reschedule(0)

            gone.add_done_callback(leave)
            try:
                await work
            finally:
                gone.remove_done_callback(leave)
                gone.cancel()
    except TimeoutError:
        if stay.expired():
            raise ClientGone from None
        raise


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
