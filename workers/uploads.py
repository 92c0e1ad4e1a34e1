"""Uploaded recordings on their way into the library: few in memory at once, examined, then kept."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from fleet.errors import BodyTooLarge, MissingField, RecordingUnfit
from fleet.library_contract import MOST_RECORDINGS
from workers.voices.artifacts import Artifacts
from workers.voices.recordings import LONGEST_TOGETHER_S, Examined, Examiner
from workers.voices.records import SampleRecord

_AT_ONCE = 2


class Upload(Protocol):
    """A file that has arrived: its bytes, and what the sender calls it."""

    filename: str | None
    size: int | None

    async def read(self, size: int = -1) -> bytes: ...


class Uploads:
    """Takes at most `max_bytes` of recordings for one voice, and examines two recordings at once."""

    def __init__(self, artifacts: Artifacts, *, max_bytes: int) -> None:
        self._artifacts = artifacts
        self._max_bytes = max_bytes
        self._examiner = Examiner()
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def keep(self, uploads: Sequence[Upload]) -> list[SampleRecord]:
        """What is to be a voice's recordings. All are fit before any is kept.

        Raises `MissingField`, `BodyTooLarge`, `UnsupportedMediaType`, `RecordingUnfit` or `StorageFull`.
        """
        if not uploads:
            raise MissingField("file is required: at least one recording", param="file")
        if len(uploads) > MOST_RECORDINGS:
            raise RecordingUnfit(f"there are {len(uploads)} recordings; a voice takes {MOST_RECORDINGS}", param="file")
        if sum(upload.size or 0 for upload in uploads) > self._max_bytes:
            raise BodyTooLarge(f"the recordings may hold at most {self._max_bytes} bytes", param="file")
        async with self._places:
            examined = [
                await self._examiner.examine(await upload.read(self._max_bytes), upload.filename) for upload in uploads
            ]
            together_s = sum(found.report.duration_s for found in examined)
            if together_s > LONGEST_TOGETHER_S:
                message = f"the recordings are {together_s:.0f} s long together; {LONGEST_TOGETHER_S:.0f} s are taken"
                raise RecordingUnfit(message, param="file")
            return [await asyncio.to_thread(self._keep, found) for found in examined]

    def _keep(self, found: Examined) -> SampleRecord:
        return SampleRecord(
            filename=found.filename,
            media_type=found.media_type,
            digest=self._artifacts.put(found.contents),
            size=len(found.contents),
            copy_digest=self._artifacts.put(found.copy),
            copy_size=len(found.copy),
            report=found.report,
        )
