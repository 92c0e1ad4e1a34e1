"""The portable kernels: plain torch, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.chatterbox import sampler
from workers.engine.chatterbox.kernels import Rows
from workers.engine.chatterbox.sampler import Lines, SamplingState


def rotate(x: Tensor, rows: Rows) -> Tensor:
    """Rotary position embedding in float32; x [N, heads, head_dim], halves paired as in Llama's `rotate_half`."""
    first, second = x.float().chunk(2, dim=-1)
    cosines, sines = (table[rows.positions, None] for table in (rows.cosines, rows.sines))
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)


def attend_in_runs(q: Tensor, keys: Tensor, values: Tensor, rows: Rows) -> Tensor:
    """A prefill's attention: each run of `rows.chunk` lines looks at its slot, up to itself.

    q [N, heads, head_dim] is rotated, and its keys and values are stored; returns [N, heads * head_dim].
    """
    end = rows.start + rows.chunk
    slots = rows.slots[:: rows.chunk]
    q = q.reshape(len(slots), rows.chunk, *q.shape[1:]).transpose(1, 2)  # [runs, heads, chunk, head_dim]
    k, v = (cache[:, :, :end].index_select(0, slots) for cache in (keys, values))
    if rows.start == 0:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        allowed = torch.ones(rows.chunk, end, dtype=torch.bool, device=q.device).tril(rows.start)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    return out.transpose(1, 2).reshape(len(rows.slots), -1)


class TorchKernels:
    """SDPA over gathered slots, with a mask where lengths differ."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def add_rms_norm(self, residual: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        if update is not None:
            residual.add_(update)
        return F.rms_norm(residual, residual.shape[-1:], weight, eps).to(self.dtype)

    def silu_and_multiply(self, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    def attend(self, qkv: Tensor, keys: Tensor, values: Tensor, rows: Rows) -> Tensor:
        heads, head_dim = keys.shape[1], keys.shape[3]
        q, k, v = qkv.view(len(qkv), 3, heads, head_dim).unbind(1)
        q, k = rotate(q, rows).to(self.dtype), rotate(k, rows).to(self.dtype)
        keys[rows.slots, :, rows.positions] = k
        values[rows.slots, :, rows.positions] = v
        if rows.chunk > 1:
            return attend_in_runs(q, keys, values, rows)
        context = keys.shape[2] if q.is_cuda else int(rows.lengths.max())
        allowed = torch.arange(context, device=q.device) < rows.lengths[:, None]  # [N, context]
        # A weight of 0 times a NaN of an earlier tenant would still be NaN, so what is not allowed is zeroed.
        visible = allowed[:, None, :, None]
        k = keys[:, :, :context].index_select(0, rows.slots)
        v = values[:, :, :context].index_select(0, rows.slots).masked_fill(~visible, 0)
        out = F.scaled_dot_product_attention(q[:, :, None], k.masked_fill(~visible, 0), v, attn_mask=visible.mT)
        return out.masked_fill(rows.lengths[:, None, None, None] == 0, 0).reshape(len(q), -1)

    def sample(self, logits: Tensor, lines: Lines, state: SamplingState, *, filtered: bool) -> None:
        sampler.sample(logits, lines, state, filtered=filtered)
