"""Sound as an HTTP answer that leaves as it is made."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from fleet.asgi import CutShort, while_client_stays
from fleet.errors import FleetError


class AudioResponse(Response):
    """Waits for the first piece before it sends a header, so a synthesis that fails at once gets an honest status.

    Whenever the caller leaves, `pieces` is closed, which cancels the synthesis.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None], *, media_type: str, headers: Mapping[str, str]) -> None:
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's shape
        await while_client_stays(receive, self._stream(send))

    async def _stream(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            piece = await anext(pieces, b"")
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            try:
                while piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    piece = await anext(pieces, b"")
            except FleetError as error:
                raise CutShort(error.message) from error
            await send({"type": "http.response.body", "body": b""})
