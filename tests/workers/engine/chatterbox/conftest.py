"""A small checkpoint, ours and upstream's model on the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from tests.workers.engine.chatterbox.checkpoints import (
    load_script,
    open_sound,
    open_tokens,
    read_voice,
    write_token_half,
)
from tests.workers.engine.chatterbox.listening import opened, wait_idle
from tests.workers.engine.chatterbox.oracle import Upstream
from tests.workers.engine.chatterbox.sound_oracle import UpstreamSound
from workers.engine.chatterbox.conditionals import VoiceConditionals
from workers.engine.chatterbox.engine import ChatterboxEngine
from workers.engine.chatterbox.s3gen import S3Gen
from workers.engine.chatterbox.token_engine import TokenEngine

LAYERS = 2


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Where tests run side by side, torch's threads wait for each other for longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.fixture(scope="session")
def s3gen(tiny_checkpoint: Path) -> S3Gen:
    """The tiny S3Gen with upstream's ten steps, in float32. Holds nothing between calls."""
    return open_sound(tiny_checkpoint, steps=10)


@pytest.fixture(scope="session")
def quick_s3gen(tiny_checkpoint: Path) -> S3Gen:
    """The same with two steps, for what does not depend on their number."""
    return open_sound(tiny_checkpoint, steps=2)


@pytest.fixture(scope="session")
def upstream_sound(make_checkpoint: ModuleType, tiny_checkpoint: Path) -> UpstreamSound:
    return UpstreamSound(make_checkpoint.upstream_s3gen("tiny"), tiny_checkpoint)


@pytest.fixture(scope="session")
def voice(tiny_checkpoint: Path) -> VoiceConditionals:
    """The tiny checkpoint's own, with a prompt of 10 s."""
    return read_voice(tiny_checkpoint)
