"""A small checkpoint, ours and upstream's model on the same weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.workers.engine.chatterbox.oracle import Upstream
from workers.engine.chatterbox.engine import TokenEngine
from workers.engine.chatterbox.options import EngineOptions
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.weights import ENGLISH, TensorFile, read_conditionals

SCRIPTS = Path(__file__).parents[4] / "scripts"
LAYERS = 3

EngineMaker = Callable[..., TokenEngine]


@pytest.fixture(scope="session")
def make_checkpoint() -> ModuleType:
    """`scripts/make_checkpoint.py`, imported."""
    spec = importlib.util.spec_from_file_location("make_checkpoint", SCRIPTS / "make_checkpoint.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_checkpoint"] = module
    spec.loader.exec_module(module)
    return module


def write_token_half(make_checkpoint: ModuleType, directory: Path, *, size: str, layers: int | None) -> Path:
    """The files of a checkpoint that T3 needs."""
    recipe = make_checkpoint.Recipe(size=size, layers=layers, seed=0)
    make_checkpoint.write_weights(
        lambda made: make_checkpoint.upstream_t3(made.size, made.layers), directory / ENGLISH.t3, recipe
    )
    make_checkpoint.write_tokenizer(directory / ENGLISH.tokenizer, recipe)
    make_checkpoint.write_conditionals(directory / ENGLISH.conditionals, recipe)
    return directory


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


def open_tokens(directory: Path, **options: Any) -> TokenEngine:
    """The token engine of a directory that lacks S3Gen."""
    file = TensorFile(directory / ENGLISH.t3)
    found = read_conditionals(directory / ENGLISH.conditionals)["t3"]
    voice = SpeakerPrompt.checked(found["speaker_emb"], found["cond_prompt_speech_tokens"], read_config(file))
    defaults: dict[str, Any] = {"device": "cpu", "precision": "fp32", "positions": 512, "max_rows": 16}
    return TokenEngine(file, directory / ENGLISH.tokenizer, voice, EngineOptions(**(defaults | options)))


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
