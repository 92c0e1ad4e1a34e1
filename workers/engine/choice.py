"""Which engine a worker runs: the one asked for, or the one the machine allows."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import structlog

from fleet.devices import visible_gpus
from fleet.errors import EngineUnavailable, ModelMissing
from workers.engine.base import Engine
from workers.engine.chatterbox.checkpoint import check_directory
from workers.engine.espeak import EspeakEngine

log = structlog.get_logger()

EngineName = Literal["auto", "espeak", "chatterbox"]
Device = Literal["auto", "cpu", "cuda"]


def open_engine(name: EngineName, *, device: Device, checkpoint: Path | None, max_jobs: int) -> Engine:
    """The engine, loaded and able to speak.

    `auto` is espeak, until the chatterbox engine has its second half. Raises `ModelMissing` when the checkpoint lacks
    a file and `EngineUnavailable` when the engine cannot run here.
    """
    if name == "auto":
        _say_why_espeak(device)
    if name != "chatterbox":
        if device == "cuda":
            raise EngineUnavailable("the espeak engine runs on the CPU only; leave out the device, or give cpu")
        return EspeakEngine(max_jobs=max_jobs)
    if checkpoint is None:
        raise ModelMissing("the chatterbox engine needs a model: give its directory with --checkpoint")
    check_directory(checkpoint)
    raise EngineUnavailable(_NO_CHATTERBOX)


_NO_CHATTERBOX = (
    "this version has the chatterbox engine's token half only, which makes no sound yet; use --engine espeak"
)


def _say_why_espeak(device: Device) -> None:
    """Nobody may mistake the demo voice for the real model."""
    if device != "cpu" and visible_gpus():
        log.warning("demo_voice", reason=_NO_CHATTERBOX)
    else:
        log.warning("demo_voice", reason="no CUDA device is visible, so the embedded espeak voice speaks instead")
