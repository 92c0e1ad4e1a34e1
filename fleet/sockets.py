"""The edge of WebSockets, as pure ASGI: request ids, typed refusals, one log line a connection."""

from __future__ import annotations

import json
import time

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.asgi import ClientGone, callers_key, error_response, identify
from fleet.contract import REQUEST_ID_HEADER
from fleet.errors import FleetError, InternalError

log = structlog.get_logger()

NORMAL_CLOSE, POLICY_CLOSE, FAILURE_CLOSE, TRY_LATER_CLOSE = 1000, 1008, 1011, 1013
"""Codes of RFC 6455, 7.4.1, and of IANA's registry for the last."""


def close_code(error: FleetError) -> int:
    if error.status in {429, 503}:
        return TRY_LATER_CLOSE
    return POLICY_CLOSE if error.status < 500 else FAILURE_CLOSE


def error_message(error: FleetError, request_id: str) -> str:
    return json.dumps({"type": "error", **error.body(request_id)})


class SocketEdge:
    """Answers a `FleetError` before the handshake with its status, and a later one with an `error` message and a close
    code; `app` is also given everything that is no WebSocket, untouched.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await _Connection(scope, receive, send).serve(self.app)
        else:
            await self.app(scope, receive, send)


class _Connection:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._request_id = identify(scope)
        self._started_at = time.monotonic()
        self._accepted = False
        self._closed_with: int | None = None
        self._outcome = "ok"
        self._bytes_sent = 0

    async def serve(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self._receive, self.send)
        except ClientGone:
            self._outcome = "client_gone"
        except FleetError as error:
            await self._end(error)
        except Exception:  # The edge: what reaches it is a fault of ours, and must cost this one connection only.
            log.exception("socket_crashed", path=self._scope["path"], request_id=self._request_id)
            await self._end(InternalError("the server met an error of its own; its log says more"))
        finally:
            log.info(
                "socket",
                request_id=self._request_id,
                path=self._scope["path"],
                outcome=self._outcome,
                close_code=self._closed_with,
                ms=round((time.monotonic() - self._started_at) * 1000, 1),
                bytes_sent=self._bytes_sent,
                **callers_key(self._scope),
                **self._scope["state"].get("log", {}),
            )

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self._accepted = True
            message.setdefault("headers", [])
            MutableHeaders(raw=message["headers"])[REQUEST_ID_HEADER] = self._request_id
        elif message["type"] == "websocket.close":
            self._closed_with = message["code"]
        elif message["type"] == "websocket.send":
            self._bytes_sent += len(message.get("bytes") or b"")
        await self._pass(message)

    async def _end(self, error: FleetError) -> None:
        self._outcome = error.code
        if self._closed_with is not None:
            return
        try:
            if self._accepted:
                await self.send({"type": "websocket.send", "text": error_message(error, self._request_id)})
                await self.send({"type": "websocket.close", "code": close_code(error), "reason": error.code})
            else:
                await error_response(error, self._request_id)(self._scope, self._receive, self._send_denial)
        except ClientGone:  # nobody is left to be told
            self._outcome = "client_gone"

    async def _send_denial(self, message: Message) -> None:
        """An HTTP answer in the handshake's place, by ASGI's extension for it."""
        if message["type"] == "websocket.http.response.start":
            MutableHeaders(raw=message["headers"])[REQUEST_ID_HEADER] = self._request_id
        await self._pass(message)

    async def _pass(self, message: Message) -> None:
        try:
            await self._send(message)
        except OSError:  # as ASGI has it for a connection that is closed
            raise ClientGone from None
