"""The engine opened from options by name, as a worker's settings give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from workers.engine.chatterbox.engine import ChatterboxEngine
from workers.engine.chatterbox.options import EngineOptions, SpeechOptions


def open_with(checkpoint: str, options: Mapping[str, Any]) -> ChatterboxEngine:
    """An engine on a checkpoint directory or hub revision; each option goes to the half that has it.

    `threads` is for torch as a whole: how many it computes with on a CPU, 0 for all cores. Raises as
    `ChatterboxEngine.open` does, and TypeError for an option that neither half has.
    """
    given = dict(options)
    if threads := given.pop("threads", 0):
        torch.set_num_threads(threads)
    tokens = {field.name: given.pop(field.name) for field in fields(EngineOptions) if field.name in given}
    return ChatterboxEngine.open(checkpoint, EngineOptions(**tokens), SpeechOptions(**given))
