"""Immutable files named for their contents: recordings, their copies, and what engines made of them."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from fleet.errors import StoreUnavailable
from fleet.files import whole_file
from workers.voices.database import disk_errors_told

log = structlog.get_logger()

_DIGEST = re.compile(r"[0-9a-f]{64}")
_QUARANTINED = ".quarantined"


class ArtifactDamaged(Exception):
    """The file is not there, or does not hold what its name says."""


class Artifacts:
    """Files at `<directory>/<first two digits>/<SHA-256>`, whole or not there; any number of processes may share them.

    Raises `StorageFull` when there is no room, and `StoreUnavailable` for any other trouble with the disk.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = directory / ".lock"
        with disk_errors_told("the library's files"):
            directory.mkdir(parents=True, exist_ok=True)
            self._lock.touch()

    def path(self, digest: str) -> Path:
        """Where a file of this digest is, or would be. Raises ValueError for what is no digest."""
        if _DIGEST.fullmatch(digest) is None:
            raise ValueError(f"{digest!r} is no SHA-256 digest")
        return self._directory / digest[:2] / digest

    def put(self, contents: bytes) -> str:
        """Keep contents, on the disk when this returns; the digest. What is there already is only made young again."""
        digest = hashlib.sha256(contents).hexdigest()
        path = self.path(digest)
        with disk_errors_told("the recording"), self._locked(fcntl.LOCK_SH):
            if _holds(path, contents):
                os.utime(path)
            else:
                path.parent.mkdir(exist_ok=True)
                with whole_file(path, durable=True) as file:
                    file.write(contents)
        return digest

    def read(self, digest: str) -> bytes:
        """Raises `ArtifactDamaged`; a file with other contents than its name says is set aside first."""
        path = self.path(digest)
        try:
            contents = path.read_bytes()
        except FileNotFoundError:
            raise ArtifactDamaged(f"{digest} is not there") from None
        except OSError as error:
            raise StoreUnavailable(f"the library's files cannot be read: {error.strerror}", retry_after=1) from error
        if hashlib.sha256(contents).hexdigest() != digest:
            self._set_aside(path)
            raise ArtifactDamaged(f"{digest} is damaged")
        return contents

    def _set_aside(self, path: Path) -> None:
        log.warning("artifact_quarantined", file=str(path))
        try:
            path.replace(path.with_name(path.name + _QUARANTINED))
        except OSError as error:
            log.warning("quarantine_failed", file=str(path), reason=error.strerror)

    def collect(self, referenced: Callable[[], Collection[str]], grace_s: float) -> int:
        """Remove what nothing refers to and nobody has put for `grace_s` seconds; the number of files removed.

        `referenced` is asked after the files were listed, so what was put in between is not in question. Files that
        are being written or were set aside go after the same time.
        """
        oldest = time.time() - grace_s
        old = [path for path in self._files() if _age_mark(path) < oldest]
        if not old:
            return 0
        kept = set(referenced())
        removed = 0
        for path in old:
            if path.name in kept:
                continue
            with self._locked(fcntl.LOCK_EX):
                if _age_mark(path) < oldest:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    @contextmanager
    def kept(self) -> Iterator[None]:
        """While entered nothing is removed; putting goes on."""
        with self._locked(fcntl.LOCK_SH):
            yield

    def _files(self) -> Iterator[Path]:
        for folder in self._directory.iterdir():
            if folder.is_dir() and not folder.is_symlink():
                yield from folder.iterdir()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Those who put share the lock, whoever removes a file has it alone."""
        with self._lock.open("a") as file:
            fcntl.flock(file, how)
            yield


def _holds(path: Path, contents: bytes) -> bool:
    try:
        return path.read_bytes() == contents
    except FileNotFoundError:
        return False


def _age_mark(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()
