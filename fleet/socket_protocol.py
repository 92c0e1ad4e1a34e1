"""uvicorn's WebSocket protocol, whose refusals of a handshake are answered as every other one here."""

from __future__ import annotations

import asyncio
from asyncio.transports import BaseTransport

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import HeaderLineTooLong, InvalidHeader, InvalidMethod, RequestLineTooLong, TooManyHeaders
from websockets.http11 import MAX_LINE_LENGTH, MAX_NUM_HEADERS, Request

from fleet import http_protocol
from fleet.errors import BadRequest, FleetError, HeadersTooLarge, MethodNotAllowed, UpgradeRequired


class StrictSocketProtocol(WebSocketsSansIOProtocol):
    """Answers a handshake that is none in this project's error shape, and ends one that takes too long.

    uvicorn answers some of them as text, and leaves a head that websockets cannot read without any answer.
    """

    _opening_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._opening_timer = self.loop.call_later(http_protocol.HEAD_TIMEOUT_S, self._end_unless_open)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._opening_timer is not None:
            self._opening_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.close_sent:
            self._refuse(_refusal(self.conn.handshake_exc))

    def handle_connect(self, event: Request) -> None:
        if self.conn.accept(event).status_code == 101:
            super().handle_connect(event)

    def _refuse(self, error: FleetError) -> None:
        self.handshake_complete = self.close_sent = True
        self.transport.write(http_protocol.refusal(error))
        self.transport.close()

    def _end_unless_open(self) -> None:
        if not self.handshake_complete:
            self.transport.close()


def _refusal(failure: Exception) -> FleetError:
    match failure:
        case RequestLineTooLong() | HeaderLineTooLong() | TooManyHeaders():
            limits = f"at most {MAX_NUM_HEADERS} headers of at most {MAX_LINE_LENGTH} bytes, cookies aside"
            return HeadersTooLarge(f"a WebSocket's handshake may hold {limits}")
        case InvalidMethod():
            return MethodNotAllowed("a WebSocket's handshake is a GET").with_header("allow", "GET")
        case InvalidHeader(name="Upgrade" | "Connection" | "Sec-WebSocket-Version"):
            return UpgradeRequired(f"this is no handshake of a WebSocket of version 13: {failure}")
        case _:
            return BadRequest(f"this is no handshake of a WebSocket: {failure.__cause__ or failure}")
