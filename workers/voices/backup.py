"""`python -m workers.voices.backup DATA TARGET`: copies the library while the fleet runs; `scripts/backup` calls it.

The database is CHATTERBOX_DATABASE_URL's, else DATA/library.db. First the garbage collectors are held back, then the
database is copied as it is at one moment, then the files it refers to: so each of them is still there, whatever is
made or removed meanwhile. TARGET appears when all of it is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, create_engine, make_url, select, text
from sqlalchemy.exc import SQLAlchemyError

import fleet
from fleet.errors import FleetError
from fleet.startup_errors import LibraryUnusable
from fleet.telling import tell
from workers.voices.artifacts import ArtifactDamaged, Artifacts
from workers.voices.database import open_engine, plainly
from workers.voices.schema import library, preparations, samples

URL_VARIABLE = "CHATTERBOX_DATABASE_URL"
MANIFEST = "backup.json"
SQLITE_FILE = "library.db"
POSTGRES_FILE = "library.dump"
FILES = "sha256"


def back_up(data: Path, target: Path, database_url: str | None) -> list[str]:
    """The digests of recordings that are damaged or missing in the library itself; the rest is in the backup.

    Raises `LibraryUnusable` where there is no library, the database cannot be copied, or the target is taken.
    """
    if not (data / FILES).is_dir():
        raise LibraryUnusable(f"{data} holds no library: it has no folder {FILES}")
    with new_directory(target) as partial, Artifacts(data / FILES).kept():
        with _copied(data, partial, database_url) as connection:
            store_id = connection.execute(select(library.c.store_id)).scalar_one()
            originals = set(connection.scalars(select(samples.c.digest)))
            originals |= set(connection.scalars(select(samples.c.copy_digest)))
            made = set(connection.scalars(select(preparations.c.artifact).where(preparations.c.artifact.is_not(None))))
        copied, damaged = _copy(Artifacts(data / FILES), Artifacts(partial / FILES), originals | made)
        manifest = {
            "created_at": time.time(),
            "version": fleet.__version__,
            "store_id": store_id,
            "database": POSTGRES_FILE if database_url else SQLITE_FILE,
            "files": len(copied),
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    # What an engine made of a recording is made again where it is missing.
    return sorted(damaged & originals)


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A folder beside the target that takes its name when all went well, and is removed when not."""
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise LibraryUnusable(f"{target} exists already and is no empty folder")
    partial = target.with_name(f"{target.name}.partial")
    try:
        partial.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise LibraryUnusable(f"{partial} cannot be made: {error.strerror}") from error
    try:
        yield partial
        for path in (*partial.rglob("*"), partial):
            _sync(path)
        partial.rename(target)
        _sync(target.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _copied(data: Path, partial: Path, database_url: str | None) -> Iterator[Connection]:
    """Copies the database; the connection sees what the copy holds."""
    if database_url is None:
        source = data / SQLITE_FILE
        copy = partial / SQLITE_FILE
        try:
            # Its own access mode keeps SQLite from making an empty library.
            with (
                closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=rw", uri=True, timeout=60)) as old,
                closing(sqlite3.connect(copy)) as new,
            ):
                old.backup(new)
                new.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
        except sqlite3.Error as error:
            raise LibraryUnusable(f"{source} cannot be copied: {error}") from error
        engine = create_engine(f"sqlite:///{copy}")
        with engine.connect() as connection:
            yield connection
        engine.dispose()
        return
    engine = open_engine(database_url)
    with engine.connect() as connection, connection.begin():
        snapshot = connection.execute(text("SELECT pg_export_snapshot()")).scalar_one()
        postgres_tool(
            "pg_dump", database_url, "--format=custom", f"--snapshot={snapshot}", "--file", partial / POSTGRES_FILE
        )
        yield connection
    engine.dispose()


def postgres_tool(name: str, database_url: str, *arguments: str | Path) -> None:
    """Run one of PostgreSQL's programs. Raises `LibraryUnusable` with its own words.

    The password goes by the environment: everybody on a machine may read command lines.
    """
    url = make_url(database_url).set(drivername="postgresql")
    environment = {**os.environ} | ({"PGPASSWORD": str(url.password)} if url.password else {})
    address = url.set(password=None).render_as_string()
    try:
        subprocess.run(
            [name, "--no-password", "--dbname", address, *arguments],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise LibraryUnusable(f"{name} is missing; on Debian: apt-get install postgresql-client") from None
    except subprocess.CalledProcessError as error:
        raise LibraryUnusable(f"{name} failed: {' '.join(error.stderr.split())}") from None


def _copy(source: Artifacts, target: Artifacts, digests: set[str]) -> tuple[set[str], set[str]]:
    """What was copied, and what is not what its name says."""
    damaged = set()
    for digest in digests:
        try:
            target.put(source.read(digest))
        except ArtifactDamaged:
            damaged.add(digest)
    return digests - damaged, damaged


def is_whole(path: Path) -> bool:
    """Whether a file holds what its name says."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == path.name


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/backup", description="Copy the library while the fleet runs.")
    parser.add_argument("data", type=Path, help="the fleet's data directory")
    parser.add_argument("target", type=Path, help="a folder to make")
    options = parser.parse_args()
    try:
        damaged = back_up(options.data, options.target.absolute(), os.environ.get(URL_VARIABLE) or None)
    except (FleetError, SQLAlchemyError, OSError) as error:
        sys.exit(f"error: {error.message if isinstance(error, FleetError) else plainly(error)}")
    files = json.loads((options.target / MANIFEST).read_text())["files"]
    tell(f"wrote {options.target}: the database and {files} files")
    if damaged:
        sys.exit("error: damaged or missing in the library itself: " + ", ".join(damaged))


if __name__ == "__main__":
    main()
