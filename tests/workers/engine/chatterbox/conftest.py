"""A small checkpoint, ours and upstream's model on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.workers.engine.chatterbox.checkpoints import load_script, open_tokens, write_token_half
from tests.workers.engine.chatterbox.listening import opened, wait_idle
from tests.workers.engine.chatterbox.oracle import Upstream
from workers.engine.chatterbox.engine import ChatterboxEngine
from workers.engine.chatterbox.token_engine import TokenEngine

LAYERS = 2


@pytest.fixture(scope="session")
def make_checkpoint() -> ModuleType:
    """`scripts/make_checkpoint.py`, imported."""
    return load_script()


@pytest.fixture(scope="session")
def wide(make_checkpoint: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T3 of upstream's widths with few layers."""
    return write_token_half(make_checkpoint, tmp_path_factory.mktemp("wide"), size="full", layers=LAYERS)


@pytest.fixture(scope="session")
def tiny(make_checkpoint: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T3 of two layers, 128 wide."""
    return write_token_half(make_checkpoint, tmp_path_factory.mktemp("tiny"), size="tiny", layers=None)


@pytest.fixture(scope="session")
def upstream(make_checkpoint: ModuleType, wide: Path) -> Upstream:
    return Upstream(make_checkpoint.upstream_t3("full", LAYERS), wide)


@pytest.fixture(scope="session")
def wide_engine(wide: Path) -> TokenEngine:
    """Shared; tests leave it idle."""
    return open_tokens(wide)


@pytest.fixture
def tiny_engine(tiny: Path) -> Iterator[TokenEngine]:
    engine = open_tokens(tiny)
    yield engine
    engine.run()
    assert engine.scheduler.free_slots == engine.slots.count


@pytest.fixture(scope="session")
def tiny_checkpoint(make_checkpoint: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files of a tiny checkpoint."""
    directory: Path = tmp_path_factory.mktemp("checkpoint") / "tiny"
    make_checkpoint.write_checkpoint(directory, size="tiny")
    return directory


@pytest.fixture(scope="session")
def shared_speech_engine(tiny_checkpoint: Path) -> Iterator[ChatterboxEngine]:
    with opened(tiny_checkpoint) as engine:
        yield engine


@pytest.fixture
def speech_engine(shared_speech_engine: ChatterboxEngine) -> Iterator[ChatterboxEngine]:
    """Shared; tests leave it idle."""
    wait_idle(shared_speech_engine)
    yield shared_speech_engine
    wait_idle(shared_speech_engine)
    assert shared_speech_engine.status().ready
