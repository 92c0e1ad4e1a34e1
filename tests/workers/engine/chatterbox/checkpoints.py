"""Small checkpoints, and what opens on them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.conditionals import VoiceConditionals
from workers.engine.chatterbox.options import EngineOptions
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.s3gen import S3Gen
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.token_engine import TokenEngine
from workers.engine.chatterbox.weights import TensorFile, read_conditionals

SCRIPTS = Path(__file__).parents[4] / "scripts"


def load_script() -> ModuleType:
    """`scripts/make_checkpoint.py`, imported once."""
    if "make_checkpoint" not in sys.modules:
        spec = importlib.util.spec_from_file_location("make_checkpoint", SCRIPTS / "make_checkpoint.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["make_checkpoint"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["make_checkpoint"]


def write_token_half(script: ModuleType, directory: Path, *, size: str, layers: int | None) -> Path:
    """The files of a checkpoint that T3 needs."""
    recipe = script.Recipe(size=size, layers=layers, seed=0)
    for name in (ENGLISH.t3, ENGLISH.tokenizer, ENGLISH.conditionals):
        script.CHECKPOINTS["english"][name](directory / name, recipe)
    return directory


def open_tokens(directory: Path, **options: Any) -> TokenEngine:
    """The token engine of a directory that may lack S3Gen; small, in float32 on the CPU unless told otherwise."""
    file = TensorFile(directory / ENGLISH.t3)
    found = read_conditionals(directory / ENGLISH.conditionals)["t3"]
    voice = SpeakerPrompt.checked(found["speaker_emb"], found["cond_prompt_speech_tokens"], read_config(file))
    defaults: dict[str, Any] = {"device": "cpu", "precision": "fp32", "positions": 512, "max_rows": 16}
    return TokenEngine(file, directory / ENGLISH.tokenizer, voice, EngineOptions(**(defaults | options)))


def open_sound(directory: Path, *, steps: int, dtype: torch.dtype = torch.float32) -> S3Gen:
    """The sound half of a checkpoint on the CPU."""
    file = TensorFile(directory / ENGLISH.s3gen)
    return S3Gen(file, device=torch.device("cpu"), dtype=dtype, steps=steps, longest=600)


def read_voice(directory: Path) -> VoiceConditionals:
    config = read_config(TensorFile(directory / ENGLISH.t3))
    return VoiceConditionals.from_upstream(read_conditionals(directory / ENGLISH.conditionals), config)
