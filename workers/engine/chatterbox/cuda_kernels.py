"""Kernels for CUDA: what lies between the matrix products, in Triton, ten launches per layer of a decode step."""

from __future__ import annotations

import torch
from torch import Tensor

from workers.engine.chatterbox import sampler, triton_kernels, triton_sampler
from workers.engine.chatterbox.kernels import Rows
from workers.engine.chatterbox.sampler import Lines, SamplingState
from workers.engine.chatterbox.torch_kernels import attend_in_runs


class TritonKernels:
    """Results go to new tensors, which inside a captured graph are places in its pool."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def add_rms_norm(self, residual: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        out = torch.empty_like(residual, dtype=self.dtype)
        triton_kernels.add_rms_norm(residual, update, weight, eps, out)
        return out

    def silu_and_multiply(self, gate_up: Tensor) -> Tensor:
        out = gate_up.new_empty(len(gate_up), gate_up.shape[1] // 2)
        triton_kernels.silu_and_multiply(gate_up, out)
        return out

    def attend(self, qkv: Tensor, keys: Tensor, values: Tensor, rows: Rows) -> Tensor:
        lines, (heads, positions, head_dim) = len(qkv), keys.shape[1:]
        triton_kernels.rope_and_store(qkv, rows.cosines, rows.sines, rows.slots, rows.positions, keys, values)
        q = qkv.view(lines, 3, heads, head_dim)[:, 0]
        if rows.chunk > 1:
            return attend_in_runs(q, keys, values, rows)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        lse = torch.empty(lines, heads, triton_kernels.splits(positions), device=q.device, dtype=torch.float32)
        partial = lse.new_empty(*lse.shape, head_dim)
        triton_kernels.decode_attention(q, keys, values, rows.slots, rows.lengths, out, partial, lse)
        return out.view(lines, -1)

    def sample(self, logits: Tensor, lines: Lines, state: SamplingState, *, filtered: bool) -> None:
        if filtered:
            logits = sampler.scores(logits, lines, state, filtered=True)
        triton_sampler.sample(
            logits,
            lines.cond,
            lines.uncond,
            lines.leads,
            state.seen,
            state.parameters,
            state.seeds,
            state.steps,
            state.done,
            state.tokens,
            state.lengths,
            lines.emitted,
            stop=state.config.stop_speech,
            processed=filtered,
        )
