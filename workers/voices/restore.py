"""`python -m workers.voices.restore BACKUP DATA`: a data directory from a backup; `scripts/restore` calls it.

With `--check` and no DATA it only reads the backup. A PostgreSQL library goes back to CHATTERBOX_DATABASE_URL, which
must be empty. DATA appears when all of it is written; workers that use it must not run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from fleet.errors import FleetError
from fleet.startup_errors import LibraryUnusable
from fleet.telling import tell
from workers.voices.backup import FILES, MANIFEST, POSTGRES_FILE, URL_VARIABLE, is_whole, new_directory, postgres_tool


def check(backup: Path) -> str:
    """The name of the database's file in it. Raises `LibraryUnusable` for what is no whole backup."""
    try:
        manifest = json.loads((backup / MANIFEST).read_text())
        database, expected = Path(manifest["database"]).name, int(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError):
        raise LibraryUnusable(f"{backup} is no backup: it has no readable {MANIFEST}") from None
    files = _files(backup)
    damaged = [path.name for path in files if not is_whole(path)]
    if damaged:
        raise LibraryUnusable(f"{backup} is damaged: {', '.join(damaged)}")
    if len(files) != expected:
        raise LibraryUnusable(f"{backup} is not whole: it holds {len(files)} of {expected} files")
    if not (backup / database).is_file():
        raise LibraryUnusable(f"{backup} is not whole: {database} is missing")
    if database != POSTGRES_FILE:
        with closing(sqlite3.connect(f"{(backup / database).absolute().as_uri()}?mode=ro", uri=True)) as connection:
            try:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.Error as error:
                verdict = str(error)
        if verdict != "ok":
            raise LibraryUnusable(f"{backup} is damaged: {database}: {verdict}")
    return database


def _files(backup: Path) -> list[Path]:
    return [path for path in (backup / FILES).glob("??/*") if len(path.name) == 64]


def restore(backup: Path, data: Path, database_url: str | None) -> None:
    """Raises `LibraryUnusable` for a backup that is not whole, a data directory or a database that is not empty."""
    database = check(backup)
    if (database == POSTGRES_FILE) != (database_url is not None):
        kind = "PostgreSQL: set" if database == POSTGRES_FILE else "SQLite: unset"
        raise LibraryUnusable(f"this is the backup of a library in {kind} {URL_VARIABLE}")
    with new_directory(data) as partial:
        shutil.copytree(backup / FILES, partial / FILES)
        if database_url is None:
            shutil.copy2(backup / database, partial / database)
        else:
            flags = ("--single-transaction", "--exit-on-error", "--no-owner")
            postgres_tool("pg_restore", database_url, *flags, backup / database)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/restore", description="Make a data directory from a backup.")
    parser.add_argument("backup", type=Path, help="a folder that scripts/backup wrote")
    parser.add_argument("data", type=Path, nargs="?", help="the data directory to make")
    parser.add_argument("--check", action="store_true", help="only read the backup, and say whether it is whole")
    options = parser.parse_args()
    if options.check == (options.data is not None):
        parser.error("give either --check or a data directory")
    try:
        if options.check:
            check(options.backup)
            tell(f"{options.backup} is whole")
        else:
            restore(options.backup, options.data.absolute(), os.environ.get(URL_VARIABLE) or None)
            tell(f"wrote {options.data}")
    except (FleetError, OSError) as error:
        sys.exit(f"error: {error.message if isinstance(error, FleetError) else error}")


if __name__ == "__main__":
    main()
