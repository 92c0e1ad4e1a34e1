"""A library in each of the two databases."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import fresh_database, running_postgres
from workers.voices.database import Database, sqlite_url


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real server."""
    with running_postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, of either kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "library.db")
    return fresh_database(request.getfixturevalue("postgres"), f"library_{uuid.uuid4().hex}")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """That database with its schema."""
    opened = Database.open(database_url)
    yield opened
    opened.close()
