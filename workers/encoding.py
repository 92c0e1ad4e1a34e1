"""Sound that was made before, encoded anew as a whole file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from tempfile import TemporaryFile
from typing import IO

import numpy as np

from fleet.bodies import Body
from fleet.contract import SAMPLE_RATE, AudioFormat
from fleet.errors import InvalidValue, Overloaded, StorageFull
from fleet.files import NO_ROOM
from workers.encoders import FileEncoder

_AT_ONCE = 2
"""Files that are encoded at a time: an encoder keeps a core busy, which the voice needs too."""

_MOST = 6
"""Files that are encoded or wait for it. The longest body, 18 minutes, takes about 10 s as MP3: the last of these is
made within 30 s, long before a balancer takes the worker for lost."""

_PIECE = SAMPLE_RATE * 2
"""Bytes that are sent at once."""


class Encoding:
    """Encodes bare samples: signed 16-bit little-endian, mono, 24 kHz. Few at once, the others wait."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._taken = 0

    async def file(self, samples: Body, audio_format: AudioFormat) -> AsyncGenerator[bytes, None]:
        """The file, in pieces; closes `samples`. Closing the generator ends the work.

        Raises `InvalidValue` for what are no samples, `Overloaded` when too many wait already, and `StorageFull` when
        there is no room for the file.
        """
        with closing(samples):
            _check(samples.size)
            if audio_format is AudioFormat.pcm:
                async for piece in samples.pieces():
                    yield piece
                return
            with _scratch() as made:
                async with self._place():
                    await _encode(samples, made, audio_format)
                while piece := await asyncio.to_thread(made.read, _PIECE):
                    yield piece

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self._taken == _MOST:
            raise Overloaded(f"{_MOST} files are being encoded already", retry_after=1)
        self._taken += 1
        try:
            async with self._places:
                yield
        finally:
            self._taken -= 1


def _check(size: int) -> None:
    if not size or size % 2:
        said = f"{size} bytes are no whole number of 16-bit samples" if size else "it is empty"
        raise InvalidValue(f"the body is not sound of this service: {said}", param="body")


@contextmanager
def _scratch() -> Iterator[IO[bytes]]:
    """A file without a name, gone at the end."""
    file = TemporaryFile()  # noqa: SIM115 - closing it must not fail
    try:
        yield file
    finally:
        with suppress(OSError):  # a full disk refuses once more what it refused before
            file.close()


async def _encode(samples: Body, made: IO[bytes], audio_format: AudioFormat) -> None:
    """What is left to do with `made` is to read it from its beginning."""
    try:
        encoder = await asyncio.to_thread(FileEncoder, audio_format, made)
        async for piece in samples.pieces():
            await asyncio.to_thread(encoder.encode, np.frombuffer(piece, "<i2"))
        await asyncio.to_thread(encoder.finish)
        await asyncio.to_thread(made.seek, 0)  # which writes what a buffer still holds
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull("there is no room to encode the sound") from error
        raise
