"""uvicorn's HTTP protocol with the bounds that it lacks: on the size of a head and on the time it takes."""

from __future__ import annotations

import asyncio
import json
import uuid
from http import HTTPStatus

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fleet.contract import REQUEST_ID_HEADER
from fleet.errors import BadRequest, FleetError, HeadersTooLarge, RequestTimeout

HEAD_LIMIT = 64 * 1024
"""Bytes a request's line and headers may take together, and a chunked body's trailers."""

HEAD_TIMEOUT_S = 30.0
"""From a head's first byte to its last."""

_FIRST_BYTE_TIMEOUT_S = 75.0
"""A new connection may be silent for as long as an idle one is kept."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """Refuses a head above `HEAD_LIMIT` with 431 and one that stalls with 408, in this project's error shape.

    Trailers are dropped: nothing here uses them, and uvicorn would take them for headers of the request. An upgrade to
    anything but a WebSocket is passed over, as a server may do that does not speak it (RFC 9110, 7.8).
    """

    _in_head = True
    _head_bytes = 0
    _loose_bytes = 0  # received since the last piece of a body, or the last end of a head or message
    _refusal: FleetError | None = None
    _head_timer: asyncio.TimerHandle | None = None
    _head_again: bytes | None = None  # of a request whose upgrade is passed over, without that

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._bound_head(_FIRST_BYTE_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unbound_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        begins = self._in_head and self._loose_bytes == 0
        self._loose_bytes += len(data)
        self._feed(data)
        if begins and self._in_head and self._loose_bytes:  # it is not whole yet, as few are
            self._bound_head(HEAD_TIMEOUT_S)
        if self._loose_bytes > HEAD_LIMIT:
            self._refusal = HeadersTooLarge(_TOO_LARGE)
        if self._refusal is not None:
            self._refuse(self._refusal)

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + len(b": \r\n")
        if self._in_head:
            super().on_header(name, value.strip(b" \t"))  # no part of the value (RFC 9110, 5.5), but httptools keeps it

    def on_headers_complete(self) -> None:
        self._unbound_head()
        self._in_head, self._loose_bytes = False, 0
        if self._head_bytes > HEAD_LIMIT:
            self._refusal = HeadersTooLarge(_TOO_LARGE)
        elif self._is_upgrade() and not self._should_upgrade():
            self._head_again = self._head_without_upgrade()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose_bytes = 0
        if self._refusal is None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_head, self._head_bytes, self._loose_bytes = True, 0, 0
        if self._refusal is None and self._head_again is None:
            super().on_message_complete()

    def _feed(self, data: bytes) -> None:
        """As uvicorn does, but for upgrades: httptools takes an upgraded request for one without a body."""
        self._unset_keepalive_if_required()
        waiting: list[bytes | memoryview] = [memoryview(data)]
        while waiting and self._refusal is None:
            part = waiting.pop()
            try:
                self.parser.feed_data(part)
            except httptools.HttpParserError:
                self._refusal = BadRequest("this is not a request of HTTP/1.1")
            except httptools.HttpParserUpgrade as upgrade:
                if self._head_again is not None:
                    waiting += part[upgrade.args[0] :], self._head_again
                    self._head_again = None
                elif self._should_upgrade():
                    self.handle_websocket_upgrade()

    def handle_websocket_upgrade(self) -> None:
        if self._refusal is None:
            # Nothing here reads cookies, which are what makes lines longer than websockets bears.
            self.scope["headers"] = [(name, value) for name, value in self.headers if name != b"cookie"]
            super().handle_websocket_upgrade()

    def _is_upgrade(self) -> bool:
        return bool(self.parser.should_upgrade()) and self.parser.get_method() != b"CONNECT"

    def _head_without_upgrade(self) -> bytes:
        first = b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        others = [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([first, *others, b"", b""])

    def _bound_head(self, seconds: float) -> None:
        self._unbound_head()
        self._head_timer = self.loop.call_later(seconds, self._head_is_late)

    def _unbound_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()

    def _head_is_late(self) -> None:
        self._refuse(RequestTimeout("the request's line and headers did not arrive in time"))

    def _refuse(self, error: FleetError) -> None:
        """Answer past the application, which has not seen this request, and close; an answer under way is cut off."""
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(refusal(error))
        self.transport.close()


def refusal(error: FleetError) -> bytes:
    """The last answer of a connection, made without the application."""
    request_id = uuid.uuid4().hex
    body = json.dumps(error.body(request_id)).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        REQUEST_ID_HEADER: request_id,
        **error.headers,
    }
    lines = [
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


_TOO_LARGE = f"the request line and headers may hold at most {HEAD_LIMIT} bytes"
