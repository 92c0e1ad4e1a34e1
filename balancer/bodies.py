"""A request's body, held until it is whole: in memory while it is small, else in a temporary file."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO, cast

from starlette.types import Receive

from fleet.asgi import ClientGone
from fleet.errors import StorageFull

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

    def content(self) -> bytes | AsyncIterator[bytes]:
        """As an HTTP client takes it: a small body in one piece."""
        if self.size > _IN_MEMORY:
            return self.pieces()
        self._file.seek(0)
        return self._file.read()


@asynccontextmanager
async def received(receive: Receive) -> AsyncIterator[Body]:
    """The whole body; what it took is freed at the end.

    Raises `ClientGone` when the caller leaves before its end, and `StorageFull` when there is no room for it.
    """
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as spooled:
        file, size = cast(BinaryIO, spooled), 0
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


async def _write(file: BinaryIO, piece: bytes, *, on_disk: bool) -> None:
    try:
        if on_disk:
            await asyncio.to_thread(file.write, piece)
        else:
            file.write(piece)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise StorageFull("there is no room for the upload") from error
        raise
