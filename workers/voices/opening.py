"""The library opened: its folder, its database and this worker's part in preparing voices."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import structlog

from fleet.errors import FleetError
from fleet.startup_errors import LibraryUnusable
from workers.engine.base import Engine
from workers.voices.artifacts import Artifacts
from workers.voices.database import Database, sqlite_url
from workers.voices.library import Library
from workers.voices.preparations import Preparations
from workers.voices.store import VoiceStore

log = structlog.get_logger()


class DataDirectory:
    """Where a worker keeps its files; without a path, a folder of its own that goes when it is closed."""

    def __init__(self, path: Path | None) -> None:
        """Raises `LibraryUnusable` when the folder cannot be made."""
        self._temporary = path is None
        try:
            self.path = Path(tempfile.mkdtemp(prefix="chatterbox-")) if path is None else path.absolute()
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LibraryUnusable(f"CHATTERBOX_DATA_DIR {path} cannot be used: {error.strerror}") from error
        if self._temporary:
            log.warning("library_temporary", folder=str(self.path), cure="CHATTERBOX_DATA_DIR")

    def close(self) -> None:
        if self._temporary:
            shutil.rmtree(self.path, ignore_errors=True)


def open_library(
    engine: Engine,
    folder: Path,
    *,
    database_url: str | None,
    name: str,
    limit_bytes: int,
    wait_s: float,
    cache_bytes: int,
    closing: asyncio.Event | None = None,
) -> tuple[Library, Callable[[], None]]:
    """The library and what closes it. Raises `LibraryUnusable`.

    `name` is the worker's; its owner's name in the store is made unique, as two may have the same. `closing` is set
    when the worker begins to end.
    """
    with ExitStack() as stack:
        try:
            database = Database.open(database_url or sqlite_url(folder / "library.db"))
            stack.callback(database.close)
            reserved = frozenset(voice.id for voice in engine.capabilities.voices)
            library = Library(
                engine,
                VoiceStore(database, reserved=reserved, limit_bytes=limit_bytes),
                Preparations(
                    database, kind=engine.capabilities.conditionals, owner=f"{name[:50]}-{secrets.token_hex(4)}"
                ),
                Artifacts(folder / "sha256"),
                wait_s=wait_s,
                cache_bytes=cache_bytes,
                closing=closing,
            )
        except LibraryUnusable:
            raise
        except FleetError as error:
            raise LibraryUnusable(f"the library in {folder} cannot be opened: {error.message}") from error
        return library, stack.pop_all().close
