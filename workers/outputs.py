"""Files of speech that `/generate` leaves: under names nobody can guess, for a time and up to a size."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from fleet.contract import AudioFormat
from fleet.errors import OutputNotFound, StorageFull
from fleet.files import UNFINISHED
from fleet.wav import complete_sizes
from workers.voices.database import disk_errors_told

_NAME = re.compile(rf"[0-9a-f]{{32}}\.({'|'.join(AudioFormat)})")
_UNFINISHED_LIMIT_S = 3600.0
"""A file that has been written to for so long belongs to a worker that died."""


@dataclass(frozen=True, slots=True)
class Output:
    """A file that was kept; `size` in bytes. Another worker may have tidied it away since."""

    name: str
    size: int


class Outputs:
    """A folder of finished files that all workers of a fleet may share; `max_age_s` in seconds, `max_bytes` of all."""

    def __init__(self, directory: Path, *, max_age_s: float, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self.max_age_s = max_age_s
        with disk_errors_told("files of speech"):
            directory.mkdir(parents=True, exist_ok=True)

    async def keep(self, pieces: AsyncGenerator[bytes, None], audio_format: AudioFormat) -> Output:
        """Write the pieces into a new file, which appears when it is whole, and for which older ones make room.

        Raises `StorageFull`, also for a file that is larger than all of them may be together.
        """
        path, size = self._directory / f"{uuid.uuid4().hex}.{audio_format}", 0
        with disk_errors_told("the file of speech"):
            descriptor, name = tempfile.mkstemp(prefix=".", suffix=UNFINISHED, dir=self._directory)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                async with aclosing(pieces) as arriving:
                    async for piece in arriving:
                        size += len(piece)
                        if size > self._max_bytes:
                            raise StorageFull(f"files of speech may hold at most {self._max_bytes} bytes together")
                        await asyncio.to_thread(_write, file, piece)
            await asyncio.to_thread(_finish, Path(name), path)
        finally:
            await asyncio.to_thread(Path(name).unlink, missing_ok=True)
        await asyncio.to_thread(self.tidy, path.name)
        return Output(path.name, size)

    def find(self, filename: str) -> Path:
        """Raises `OutputNotFound` for any other name than `keep` gives, and for what is too old."""
        path = self._directory / filename
        try:
            if _NAME.fullmatch(filename) is None:
                raise FileNotFoundError
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode) or found.st_mtime + self.max_age_s < time.time():
                raise FileNotFoundError
        except OSError:
            raise OutputNotFound("there is no such file, or it has been removed", param="filename") from None
        return path

    def tidy(self, keeping: str = "") -> int:
        """Remove what is too old, then the oldest until the rest is small enough; the number of files removed.

        The file of the name `keeping` stays, and has its room before all others.
        """
        now, removed, room = time.time(), 0, self._max_bytes
        files = sorted(self._files(), key=lambda found: (found[0].name == keeping, found[1].st_mtime), reverse=True)
        for path, found in files:
            unfinished = path.name.endswith(UNFINISHED)
            limit_s = _UNFINISHED_LIMIT_S if unfinished else self.max_age_s
            if not unfinished:
                room -= found.st_size
            if path.name == keeping:
                continue
            if found.st_mtime + limit_s < now or (room < 0 and not unfinished):
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for entry in os.scandir(self._directory):
            if _NAME.fullmatch(entry.name) or entry.name.endswith(UNFINISHED):
                try:
                    yield Path(entry.path), entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # another worker tidies too
                    continue


def _write(file: FileIO, piece: bytes) -> None:
    """Without a buffer, whose rest would be tried again, and fail again, when the file is closed."""
    with disk_errors_told("the file of speech"):
        left = memoryview(piece)
        while left:
            left = left[file.write(left) :]


def _finish(unfinished: Path, path: Path) -> None:
    with disk_errors_told("the file of speech"):
        if path.suffix == f".{AudioFormat.wav}":
            complete_sizes(unfinished)
        unfinished.replace(path)
