"""One database for a whole fleet: SQLite in a file, or PostgreSQL by URL; short transactions, bounded waits."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url, select, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from fleet.errors import StorageFull, StoreUnavailable
from fleet.files import NO_ROOM
from fleet.startup_errors import LibraryUnusable
from workers.voices.schema import library

log = structlog.get_logger()

LONGEST_WAIT_S = 5.0
"""For a lock, and for a server that does not answer."""

_ADVISORY_LOCK = 0x63686174
"""PostgreSQL's number for "these migrations are being run"; any that nobody else uses."""

_SQLITE_NO_ROOM = {"SQLITE_FULL", "SQLITE_IOERR_WRITE"}  # the second is how it tells EFBIG
_POSTGRES_NO_ROOM = {"53100"}  # disk_full


class Database:
    """Connections to the library's database.

    Errors of the driver leave as `StorageFull` (507) or `StoreUnavailable` (503), but for broken constraints, which
    are the caller's to understand.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Database:
        """Connect and bring the schema up to date, one process at a time. Raises `LibraryUnusable`."""
        engine = open_engine(url)
        try:
            with _alone(engine) as connection:
                _migrate(connection)
        except (SQLAlchemyError, OSError) as error:
            engine.dispose()
            raise LibraryUnusable(f"the library at {engine.url!r} cannot be opened: {plainly(error)}") from error
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    @property
    def dialect(self) -> str:
        return self._engine.dialect.name

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One unchanging view of everything."""
        with _errors_told(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that sees the newest and that no other writer runs beside."""
        with _errors_told(), self._engine.connect() as plain:
            connection = _for_writing(plain)
            with connection.begin():
                if self.dialect != "sqlite":
                    connection.execute(select(library.c.id).with_for_update())
                yield connection

    def close(self) -> None:
        self._engine.dispose()


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path}"


def open_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise LibraryUnusable("the library's address is not a database URL") from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        engine = create_engine(parsed, connect_args={"timeout": LONGEST_WAIT_S}, pool_timeout=LONGEST_WAIT_S)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if kind != "postgresql":
        raise LibraryUnusable(f"the library can be in SQLite or PostgreSQL, not in {kind}")
    milliseconds = int(LONGEST_WAIT_S * 1000)
    try:
        return create_engine(
            parsed,
            isolation_level="REPEATABLE READ",
            pool_pre_ping=True,
            pool_timeout=LONGEST_WAIT_S,
            connect_args={
                "connect_timeout": int(LONGEST_WAIT_S),
                "options": f"-c lock_timeout={milliseconds} -c statement_timeout={milliseconds}",
            },
        )
    except NoSuchModuleError as error:
        raise LibraryUnusable(f"the library's database driver is missing: {error}") from None


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # transactions begin where SQLAlchemy says, not where the driver guesses
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")


def _for_writing(connection: Connection) -> Connection:
    """A writer waits for the one before it, and must see what that one did, not what there was when it began."""
    if connection.dialect.name == "sqlite":
        return connection.execution_options(begin="IMMEDIATE")
    return connection.execution_options(isolation_level="READ COMMITTED")


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """A transaction during which no other process migrates."""
    path = engine.url.database
    on_file = engine.dialect.name == "sqlite" and path not in (None, "", ":memory:")
    with _file_lock(Path(f"{path}.lock")) if on_file else nullcontext(), engine.connect() as plain:
        connection = _for_writing(plain)
        with connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = '60s'"))
                connection.execute(text("SET LOCAL statement_timeout = '60s'"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _ADVISORY_LOCK})
            yield connection


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        newest = ScriptDirectory.from_config(config).get_current_head()
        message = f"the library was written by a newer version of this program, which knows schema {newest}"
        raise LibraryUnusable(f"{message}: {error}") from error


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if error.orig is not None and _is_constraint(error):
            raise
        if _is_full(error.orig):
            raise StorageFull("the disk that holds the library is full") from error
        log.warning("store_unavailable", reason=plainly(error))
        raise StoreUnavailable("the library of voices does not answer now", retry_after=1) from error
    except SQLAlchemyError as error:
        log.warning("store_unavailable", reason=plainly(error))
        raise StoreUnavailable("the library of voices does not answer now", retry_after=1) from error


def _is_constraint(error: DBAPIError) -> bool:
    return type(error).__name__ == "IntegrityError"


def _is_full(error: Any) -> bool:
    return (
        getattr(error, "sqlite_errorname", None) in _SQLITE_NO_ROOM
        or getattr(error, "sqlstate", None) in _POSTGRES_NO_ROOM
    )


@contextmanager
def disk_errors_told(what: str) -> Iterator[None]:
    """A disk without room leaves as `StorageFull`, any other trouble with files as `StoreUnavailable`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise StorageFull(f"there is no room for {what}") from error
        log.warning("files_unavailable", what=what, reason=str(error))
        raise StoreUnavailable(f"{what} cannot be reached now", retry_after=1) from error


def plainly(error: BaseException) -> str:
    """The driver's own words in one line, without the statement."""
    cause = getattr(error, "orig", None) or error
    return " ".join(str(cause).split())
