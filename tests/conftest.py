"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx2
import pytest

from fleet.devices import visible_gpus
from tests.running import RunningFleet
from workers.engine.espeak import EspeakEngine

if not visible_gpus():
    # Triton looks at this when it is imported, which other packages do too, so it must be set before any of them.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """Two espeak workers and a balancer, for tests that leave them as they found them."""
    with RunningFleet(tmp_path_factory.mktemp("fleet"), "--engine", "espeak") as running:
        yield running


@pytest.fixture(scope="session")
def http(fleet: RunningFleet) -> Iterator[httpx2.Client]:
    """A client of that fleet's balancer."""
    with httpx2.Client(base_url=fleet.url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def worker_http(fleet: RunningFleet) -> Iterator[httpx2.Client]:
    """A client of one of its workers, past the balancer."""
    with httpx2.Client(base_url=fleet.worker_urls()[0], timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="session")
def engine() -> Iterator[EspeakEngine]:
    """The embedded engine in this process."""
    opened = EspeakEngine()
    yield opened
    opened.close()
