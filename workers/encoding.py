"""Sound that was made before, encoded anew as a whole file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from tempfile import SpooledTemporaryFile, TemporaryFile
from typing import IO

import numpy as np

from fleet.contract import SAMPLE_RATE, AudioFormat
from fleet.errors import InvalidValue
from workers.encoders import FileEncoder

_AT_ONCE = 2
"""Files that are encoded at a time: an encoder keeps a core busy, which the voice needs too."""

_IN_MEMORY = 2**20
"""Bytes of samples; what is longer waits on disk."""

_PIECE = SAMPLE_RATE * 2
"""Bytes: a second of 16-bit samples."""


class Encoding:
    """Encodes bare samples: signed 16-bit little-endian, mono, 24 kHz. Few at once, the others wait."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)

    @staticmethod
    async def taken(body: AsyncIterator[bytes]) -> IO[bytes]:
        """The samples of a body, for `file`, which closes them. Raises `InvalidValue` for what are none."""
        samples: IO[bytes] = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - it outlives this
        size = 0
        async for part in body:
            await asyncio.to_thread(samples.write, part)
            size += len(part)
        if not size or size % 2:
            samples.close()
            said = "it is empty" if not size else f"{size} bytes are no whole number of 16-bit samples"
            raise InvalidValue(f"the body is not sound of this service: {said}", param="body")
        samples.seek(0)
        return samples

    async def file(self, samples: IO[bytes], audio_format: AudioFormat) -> AsyncGenerator[bytes, None]:
        """The file, in pieces. Closing the generator ends the work."""
        with samples, TemporaryFile() as made:
            if audio_format is not AudioFormat.pcm:
                async with self._places:
                    await _encode(samples, made, audio_format)
                made.seek(0)
            async for piece in _read(samples if audio_format is AudioFormat.pcm else made):
                yield piece


async def _encode(samples: IO[bytes], made: IO[bytes], audio_format: AudioFormat) -> None:
    encoder = await asyncio.to_thread(FileEncoder, audio_format, made)
    async for piece in _read(samples):
        await asyncio.to_thread(encoder.encode, np.frombuffer(piece, "<i2"))
    await asyncio.to_thread(encoder.finish)


async def _read(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, _PIECE):
        yield piece
