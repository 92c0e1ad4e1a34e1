"""How the engine is run and what it accepts: devices, precisions, ranges."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args, get_type_hints

import torch

from fleet.errors import InvalidValue
from fleet.speech_contract import MOST_TOP_K
from fleet.startup_errors import EngineUnavailable, InvalidSettings
from workers.engine.base import Quality, SamplingParameters
from workers.engine.chatterbox.kernels import AttentionName


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How to run the model.

    `precision` of weights, activations and the KV cache; `auto` is bf16 on CUDA and on a CPU that computes in it.
    `strict` runs every step with all rows, so that on CUDA too a seed gives the same tokens whatever else runs; on a
    CPU with its own kernels that is so anyway. `positions` is the length of a slot: prompt and speech tokens together.
    `max_rows` bounds the rows of a step, two per sequence with guidance. `memory_share` of the free memory goes to the
    KV cache. Raises `InvalidSettings`, naming the option.
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

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("device", "precision", "attention"):
            if getattr(self, name) not in get_args(hints[name]):
                raise InvalidSettings(f"{name} must be one of {', '.join(get_args(hints[name]))}", param=name)
        for name, (low, high) in _LIMITS.items():
            if not (_is_whole(value := getattr(self, name)) and low <= value <= high):
                expected = f"{name} must be a whole number from {low} to {high}"
                raise InvalidSettings(f"{expected}, not {value!r}", param=name)
        if not (_is_number(self.memory_share) and 0 < self.memory_share <= 1):
            raise InvalidSettings(
                f"memory_share must be above 0 and at most 1, not {self.memory_share!r}", param="memory_share"
            )


@dataclass(frozen=True, slots=True)
class SpeechOptions:
    """How tokens become sound, and how much an engine takes on.

    `n_steps` is the number of Euler steps of standard quality; a draft takes half of them, high quality twice as many.
    `max_tokens` bounds the speech of one segment, 25 tokens for each second. `prompt_s` is how much of a voice's
    recording, at most 10 s, S3Gen is shown each time, and `window_s` how much of what was said before. `vocoder_rows`
    streams share an Euler step. `voice_memory` is what voices may take on the device, in bytes; `conditionals` is the
    directory where computed voices are kept. An engine whose thread makes no step for `stuck_after_s` is given up;
    0 leaves the choice to the device. Raises `InvalidSettings`, naming the option.
    """

    n_steps: int = 10
    watermark: bool = True
    max_jobs: int = 256
    max_tokens: int = 1000
    prompt_s: float = 10.0
    window_s: float = 2.0
    vocoder_rows: int = 0
    voice_memory: int = 256 * 2**20
    conditionals: Path | None = None
    stuck_after_s: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in _SPEECH_LIMITS.items():
            if not (_is_whole(value := getattr(self, name)) and low <= value <= high):
                raise InvalidSettings(f"{name} must be a whole number from {low} to {high}, not {value!r}", param=name)
        for name, (least, most) in _SPEECH_RANGES.items():
            if not (_is_number(value := getattr(self, name)) and least <= value <= most):
                raise InvalidSettings(f"{name} must be a number from {least:g} to {most:g}, not {value!r}", param=name)


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


_SPEECH_LIMITS = {
    "n_steps": (1, 100),
    "max_jobs": (1, 10_000),
    "max_tokens": (1, 4000),
    "vocoder_rows": (0, 256),
    "voice_memory": (0, 2**40),
}

_SPEECH_RANGES = {"prompt_s": (0.04, 10.0), "window_s": (0.0, 60.0), "stuck_after_s": (0.0, 86_400.0)}

_LIMITS = {"positions": (64, 8192), "max_rows": (1, 512), "max_waiting": (1, 1_000_000)}

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
        if not (_is_number(value) and low <= value <= high):
            raise InvalidValue(f"{name} must be a number from {low:g} to {high:g}, not {value!r}", param=name)
    if parameters.quality not in get_args(Quality):
        raise InvalidValue(f"quality must be one of {', '.join(get_args(Quality))}", param="quality")
    if not (_is_whole(parameters.top_k) and 0 <= parameters.top_k <= MOST_TOP_K):
        raise InvalidValue(f"top_k must be a whole number from 0 to {MOST_TOP_K}", param="top_k")
    if parameters.seed is not None and not (_is_whole(parameters.seed) and 0 <= parameters.seed < 2**63):
        raise InvalidValue("seed must be a whole number from 0 to 2**63 - 1", param="seed")


def plain(parameters: SamplingParameters) -> SamplingParameters:
    """Checked parameters as Python's own numbers: NumPy's overflow where these do not."""
    floats: dict[str, Any] = {name: float(getattr(parameters, name)) for name in _RANGES}
    seed = None if parameters.seed is None else int(parameters.seed)
    return replace(parameters, **floats, top_k=int(parameters.top_k), seed=seed)


def check_max_tokens(value: int, most: int) -> None:
    """Raise `InvalidValue` unless it is a whole number from 1 to `most`."""
    if not (_is_whole(value) and 1 <= value <= most):
        raise InvalidValue(f"max_tokens must be a whole number from 1 to {most}, not {value!r}", param="max_tokens")


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    """Not NaN: that is in no range, so it need not be looked for here."""
    return isinstance(value, Real) and not isinstance(value, bool)
