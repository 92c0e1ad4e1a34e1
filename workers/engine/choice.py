"""Which engine a worker runs: the one asked for, or the one the machine allows."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Literal, cast

import structlog

from fleet.devices import visible_gpus
from fleet.errors import EngineUnavailable, ModelMissing
from workers.engine.base import Engine
from workers.engine.espeak import EspeakEngine

log = structlog.get_logger()

EngineName = Literal["auto", "espeak", "chatterbox"]
Device = Literal["auto", "cpu", "cuda"]

CHECKPOINT_FILES = ("t3_cfg.safetensors", "s3gen.safetensors", "ve.safetensors", "tokenizer.json", "conds.pt")
"""What an English Chatterbox checkpoint directory holds, by upstream's file names."""


def open_engine(name: EngineName, *, device: Device, checkpoint: Path | None, max_jobs: int) -> Engine:
    """The engine, loaded and able to speak.

    `auto` is chatterbox where a CUDA device is visible and this installation has that engine, else espeak. Raises
    `ModelMissing` when the checkpoint lacks a file and `EngineUnavailable` when the engine cannot run here.
    """
    chosen = name if name != "auto" else _automatic(device)
    if chosen == "espeak":
        if device == "cuda":
            raise EngineUnavailable("the espeak engine runs on the CPU only; leave out the device, or give cpu")
        return EspeakEngine(max_jobs=max_jobs)
    check_checkpoint(checkpoint)
    if not _has_chatterbox():
        raise EngineUnavailable(_NO_CHATTERBOX)
    module = importlib.import_module(_CHATTERBOX)
    return cast(Engine, module.open_engine(device=device, checkpoint=checkpoint, max_jobs=max_jobs))


def check_checkpoint(checkpoint: Path | None) -> None:
    """Raise `ModelMissing`, naming what is not there."""
    if checkpoint is None:
        raise ModelMissing("the chatterbox engine needs a model: give its directory with --checkpoint")
    if not checkpoint.is_dir():
        raise ModelMissing(f"no checkpoint: {checkpoint} is not a directory")
    missing = [file for file in CHECKPOINT_FILES if not (checkpoint / file).is_file()]
    if missing:
        raise ModelMissing(f"the checkpoint {checkpoint} lacks {', '.join(missing)}")


_CHATTERBOX = "workers.engine.chatterbox"
_NO_CHATTERBOX = "this version does not include the chatterbox engine yet; use --engine espeak"


def _has_chatterbox() -> bool:
    return importlib.util.find_spec(_CHATTERBOX) is not None


def _automatic(device: Device) -> Literal["espeak", "chatterbox"]:
    if device != "cpu" and visible_gpus():
        if _has_chatterbox():
            return "chatterbox"
        log.warning("demo_voice", reason=_NO_CHATTERBOX)
    else:
        log.warning("demo_voice", reason="no CUDA device is visible, so the embedded espeak voice speaks instead")
    return "espeak"
