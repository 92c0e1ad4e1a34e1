"""Which engine a worker runs: the one asked for, or the one the machine allows."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

import structlog

from fleet.devices import visible_gpus
from fleet.startup_errors import EngineUnavailable, ModelMissing
from workers.engine.base import Engine
from workers.engine.chatterbox.checkpoint import check_directory
from workers.engine.espeak import EspeakEngine

log = structlog.get_logger()

EngineName = Literal["auto", "espeak", "chatterbox"]
Device = Literal["auto", "cpu", "cuda"]


def open_engine(
    name: EngineName,
    *,
    device: Device,
    checkpoint: str | None,
    max_jobs: int,
    chatterbox: Mapping[str, Any] | None = None,
) -> Engine:
    """The engine, loaded and able to speak.

    `auto` is chatterbox where a CUDA device is visible and a checkpoint is given, else espeak. `checkpoint` is a
    directory or `hub:OWNER/NAME@COMMIT`; `chatterbox` holds that engine's options by name. Raises `ModelMissing` or
    `ModelInvalid` when the checkpoint is not whole, `InvalidSettings` for an option and `EngineUnavailable` when the
    engine cannot run here.
    """
    if name == "auto":
        name = _choose(device, checkpoint)
    if name == "espeak":
        if device == "cuda":
            raise EngineUnavailable("the espeak engine runs on the CPU only; leave out the device, or give cpu")
        return EspeakEngine(max_jobs=max_jobs)
    if checkpoint is None:
        raise ModelMissing("the chatterbox engine needs a model: give its directory with --checkpoint")
    if not checkpoint.startswith("hub:"):
        check_directory(Path(checkpoint))
    return _open_chatterbox(checkpoint, {**(chatterbox or {}), "device": device, "max_jobs": max_jobs})


def _open_chatterbox(checkpoint: str, options: Mapping[str, Any]) -> Engine:
    try:
        opening = import_module("workers.engine.chatterbox.opening")  # only here, so that a worker without torch starts
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            f"the chatterbox engine is not installed: there is no {error.name}; "
            "`scripts/up --engine chatterbox` installs it, or `pip install 'chatterbox-fleet[chatterbox]'`"
        ) from error
    return cast(Engine, opening.open_with(checkpoint, options))


def _choose(device: Device, checkpoint: str | None) -> EngineName:
    """Nobody may mistake the demo voice for the real model."""
    if device != "cpu" and visible_gpus():
        if checkpoint is not None:
            return "chatterbox"
        reason = "no checkpoint is given, so the embedded espeak voice speaks instead; give one with --checkpoint"
    else:
        reason = "no CUDA device is visible, so the embedded espeak voice speaks instead"
    log.warning("demo_voice", reason=reason)
    return "espeak"
