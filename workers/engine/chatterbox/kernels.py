"""The operations between the matrix products, and which implementation of them runs where."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

from fleet.startup_errors import EngineUnavailable

if TYPE_CHECKING:
    from workers.engine.chatterbox.sampler import Lines, SamplingState

AttentionName = Literal["auto", "triton", "numba", "sdpa"]


@dataclass(frozen=True, slots=True)
class Rows:
    """Where each of N lines of a batch stands.

    `slots`, `positions` and `lengths` are int64 [N]: the slot of the KV cache, the position in it that this line
    computes, and how many positions it may look at, its own included; 0 for a dead row. `cosines` and `sines` are
    float32 [positions of a slot, head_dim / 2], the rotation of each position. In a prefill, lines come in runs of
    `chunk` consecutive positions of one slot, the first of them at position `start`; a decode step has `chunk` 1.
    """

    slots: Tensor
    positions: Tensor
    lengths: Tensor
    cosines: Tensor
    sines: Tensor
    chunk: int = 1
    start: int = 0


class Kernels(Protocol):
    """What a device does between matrix products. Nothing here waits for the device."""

    def add_rms_norm(self, residual: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        """Add `update` to the float32 `residual` [N, d] in place and return its RMS norm in the model's precision."""
        ...

    def attend(self, qkv: Tensor, keys: Tensor, values: Tensor, rows: Rows) -> Tensor:
        """Rotate and store this layer's keys and values, then attend.

        qkv [N, 3 * heads * head_dim] may be written to; keys and values are [slots, heads, positions, head_dim].
        Returns [N, heads * head_dim]. What lies beyond a row's length, or in other slots, has no influence, NaN
        included; a row of length 0 gives zeros.
        """
        ...

    def silu_and_multiply(self, gate_up: Tensor) -> Tensor:
        """[N, 2 * f], the gate first, to silu(gate) * up [N, f]."""
        ...

    def sample(self, logits: Tensor, lines: Lines, state: SamplingState, *, filtered: bool) -> None:
        """Draw one token per line from float32 logits [N, vocabulary] and move the state on; see `sampler.py`."""
        ...


def choose_kernels(name: AttentionName, *, device: torch.device, dtype: torch.dtype) -> Kernels:
    """Triton on CUDA, numba on a CPU, or what was asked for. Raises `EngineUnavailable` where it cannot run."""
    if name == "auto":
        name = "triton" if device.type == "cuda" else "numba"
    if name == "numba" and device.type != "cpu":
        raise EngineUnavailable("the numba kernels run on a CPU only; use triton or sdpa")
    if name == "triton" and device.type != "cuda":
        raise EngineUnavailable("the Triton kernels run on CUDA only; use numba or sdpa")
    module, kind = {
        "sdpa": ("torch_kernels", "TorchKernels"),
        "numba": ("numba_kernels", "NumbaKernels"),
        "triton": ("cuda_kernels", "TritonKernels"),
    }[name]
    kernels: Kernels = getattr(importlib.import_module(f"workers.engine.chatterbox.{module}"), kind)(dtype)
    return kernels
