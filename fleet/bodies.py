"""A request's body, held until it is whole: in memory while it is small, else in a temporary file."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import BinaryIO, cast

from starlette.types import Receive

from fleet.asgi import ClientGone
from fleet.errors import StorageFull
from fleet.files import NO_ROOM

_IN_MEMORY = 2**20
_PIECE = 2**18


class Body:
    """The bytes of one request, to be sent as often as it takes."""

    def __init__(self, held: bytes | BinaryIO, size: int) -> None:
        self._held = held
        self.size = size

    async def pieces(self) -> AsyncIterator[bytes]:
        """From the beginning. For one reader at a time."""
        if isinstance(self._held, bytes):
            yield self._held
            return
        await asyncio.to_thread(self._held.seek, 0)
        while piece := await asyncio.to_thread(self._held.read, _PIECE):
            yield piece

    def start(self) -> bytes:
        """A small body, whole; of one on disk nothing."""
        return self._held if isinstance(self._held, bytes) else b""

    def content(self) -> bytes | AsyncIterator[bytes]:
        """As an HTTP client takes it: a small body in one piece."""
        return self._held if isinstance(self._held, bytes) else self.pieces()

    def close(self) -> None:
        """What it took is freed."""
        if not isinstance(self._held, bytes):
            _close(self._held)


async def received(receive: Receive) -> Body:
    """The whole body, to be closed.

    Raises `ClientGone` when the caller leaves before its end, and `StorageFull` when there is no room for it.
    """
    piece, more = await _next(receive)
    if not more:
        return Body(piece, len(piece))
    file, size = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)), 0  # noqa: SIM115 - the body's
    try:
        while True:
            size += len(piece)
            await _write(file, piece, on_disk=size > _IN_MEMORY)
            if not more:
                break
            piece, more = await _next(receive)
        if size > _IN_MEMORY:
            return Body(file, size)
        file.seek(0)
        small = file.read()
    except BaseException:
        _close(file)
        raise
    _close(file)
    return Body(small, size)


def _close(file: BinaryIO) -> None:
    with suppress(OSError):  # a full disk refuses once more what it refused before
        file.close()


async def _next(receive: Receive) -> tuple[bytes, bool]:
    """The next piece, and whether more follow."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


async def _write(file: BinaryIO, piece: bytes, *, on_disk: bool) -> None:
    try:
        if on_disk:
            await asyncio.to_thread(file.write, piece)
        else:
            file.write(piece)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull("there is no room for the upload") from error
        raise
