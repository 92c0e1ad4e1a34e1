"""`python -m workers.voices.inspection`: says how the library's database is, without writing to it.

Reads a database URL or the path of an SQLite file from standard input and prints one JSON object: `level` (`ok`,
`warning` or `problem`), `said`, `mend`. `fleet doctor` runs it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import quote

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import SQLAlchemyError

from fleet.startup_errors import LibraryUnusable
from workers.voices.database import open_engine, plainly

MIGRATIONS = Path(__file__).with_name("migrations")


def inspect(where: str) -> dict[str, str | None]:
    try:
        engine = open_engine(where) if "://" in where else create_engine(_read_only(Path(where)))
        with engine.connect() as connection:
            return _examine(connection)
    except LibraryUnusable as error:
        return _found("problem", error.message, "correct CHATTERBOX_DATABASE_URL")
    except SQLAlchemyError as error:
        return _found(
            "problem",
            f"the library's database cannot be read: {plainly(error)}",
            "see that it runs and that this user may read it; else restore the newest backup",
        )


def _read_only(path: Path) -> str:
    """Where nobody has it open, `immutable` keeps SQLite from making the files of a log beside it."""
    in_use = path.with_name(f"{path.name}-wal").exists()
    return f"sqlite:///file:{quote(str(path))}?mode=ro&immutable={0 if in_use else 1}&uri=true"


def _examine(connection: Connection) -> dict[str, str | None]:
    if connection.dialect.name == "sqlite":
        verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if verdict != "ok":
            return _found("problem", f"the library's database is damaged: {verdict}", "restore the newest backup")
    scripts = ScriptDirectory(str(MIGRATIONS))
    newest, current = scripts.get_current_head(), MigrationContext.configure(connection).get_current_revision()
    if current == newest:
        return _found("ok", f"the library's database is whole, with schema {current}")
    known = {script.revision for script in scripts.walk_revisions()}
    if current is None or current in known:
        said = f"the library's database has schema {current or 'none'}; this program's is {newest}"
        return _found("warning", said, "make a backup; the next start of a worker brings it up to date")
    said = f"the library's database has schema {current}, newer than this program's {newest}"
    return _found("problem", said, "update this program, or restore the backup made before the update")


def _found(level: str, said: str, mend: str | None = None) -> dict[str, str | None]:
    return {"level": level, "said": said, "mend": mend}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(inspect(sys.stdin.read().strip())))
