"""A request's body, held until it is whole: in memory while it is small, else in a temporary file."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO, cast

from starlette.types import Receive

from fleet.asgi import ClientGone
from fleet.errors import StorageFull
from fleet.files import NO_ROOM

_IN_MEMORY = 2**20
_PIECE = 2**18


class Body:
    """The bytes of one request, to be sent as often as it takes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size

    async def pieces(self) -> AsyncIterator[bytes]:
        """From the beginning. For one reader at a time."""
        await asyncio.to_thread(self._file.seek, 0)
        while piece := await asyncio.to_thread(self._file.read, _PIECE):
            yield piece

    def start(self) -> bytes:
        """A small body, whole; of one on disk nothing."""
        if self.size > _IN_MEMORY:
            return b""
        self._file.seek(0)
        return self._file.read()

    def content(self) -> bytes | AsyncIterator[bytes]:
        """As an HTTP client takes it: a small body in one piece."""
        if self.size > _IN_MEMORY:
            return self.pieces()
        return self.start()


@asynccontextmanager
async def received(receive: Receive) -> AsyncIterator[Body]:
    """The whole body; what it took is freed at the end.

    Raises `ClientGone` when the caller leaves before its end, and `StorageFull` when there is no room for it.
    """
    file, size = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)), 0  # noqa: SIM115 - see `finally`
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            size += len(piece)
            await _write(file, piece, on_disk=size > _IN_MEMORY)
            if not message.get("more_body", False):
                break
        yield Body(file, size)
    finally:
        with suppress(OSError):  # a full disk refuses once more what it refused before
            file.close()


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
