"""How the engine is run and what it accepts: devices, precisions, ranges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from fleet.errors import EngineUnavailable, InvalidValue
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.kernels import AttentionName


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run the model.

    `precision` of weights, activations and the KV cache; `auto` is bf16 on CUDA and on a CPU that computes in it.
    `strict` runs every step with all rows, so that on CUDA too a seed gives the same tokens whatever else runs; on a
    CPU in fp32 that is so anyway. `positions` is the length of a slot: prompt and speech tokens together. `max_rows`
    bounds the rows of a step, two per sequence with guidance. `memory_share` of the free memory goes to the KV cache.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    attention: AttentionName = "auto"
    strict: bool = False
    positions: int = 1536
    max_rows: int = 128
    memory_share: float = 0.5
    max_waiting: int = 256
    capture: bool = True


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """Raises `EngineUnavailable` when CUDA is asked for and torch sees no device."""
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineUnavailable("torch sees no CUDA device")
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def choose_precision(name: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """`auto` is bf16 where the device multiplies matrices in it: CUDA from Ampere on, a CPU with AVX512-BF16 or AMX."""
    if name != "auto":
        return torch.float32 if name == "fp32" else torch.bfloat16
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        fast = any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


_RANGES = {
    "exaggeration": (0.0, 2.0),
    "cfg_weight": (0.0, 5.0),
    "temperature": (0.0, 5.0),
    "min_p": (0.0, 1.0),
    "top_p": (0.0, 1.0),
    "repetition_penalty": (0.1, 10.0),
}
"""What is accepted, both ends included; a temperature of 0 takes the likeliest token."""


def check_parameters(parameters: SamplingParameters) -> None:
    """Raise `InvalidValue`, naming the parameter that is out of its range."""
    for name, (low, high) in _RANGES.items():
        value = getattr(parameters, name)
        if not (math.isfinite(value) and low <= value <= high):
            raise InvalidValue(f"{name} must be between {low:g} and {high:g}, not {value}", param=name)
    if parameters.top_k < 0:
        raise InvalidValue(f"top_k must be 0 or more, not {parameters.top_k}", param="top_k")
    if parameters.seed is not None and not 0 <= parameters.seed < 2**63:
        raise InvalidValue("seed must be between 0 and 2**63 - 1", param="seed")
