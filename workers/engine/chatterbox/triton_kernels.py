"""Triton kernels of one decode step of T3, for continuous batches under CUDA graphs.

Every launcher writes into tensors of its caller, allocates nothing, reads nothing back to the host, and takes its grid
from shapes alone, so a captured launch stays right while slots, lengths and parameters change on the device. Triton
compiles at the first launch: launch once before capture. With `TRITON_INTERPRET=1` set before this module is imported
the kernels run on a CPU, for tests.

Sizes: R rows, H heads, D head dimensions (a power of two), P positions of a slot, V vocabulary ids. Strides are in
elements; the last dimension of every tensor is contiguous. Index tensors are int64; arithmetic is float32.
"""

# Triton ships no types, and a kernel's arguments have others inside it (pointers, tiles) than at its launch:
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False
# ruff: noqa: PLR0917 - kernels and their launchers take tensors in the order of their data flow

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

SPLIT = 128
"""Keys that one partial softmax covers. Constant, so that a row's result does not depend on the batch around it."""

_LOG2_E = tl.constexpr(1.4426950408889634)
_INF = tl.constexpr(float("inf"))


def splits(positions: int) -> int:
    """How many partial results a slot of so many positions needs."""
    return -(-positions // SPLIT)


def rope_and_store(
    qkv: Tensor, cosines: Tensor, sines: Tensor, slots: Tensor, positions: Tensor, keys: Tensor, values: Tensor
) -> None:
    """Rotate the queries of `qkv` [R, 3 H D] (q, k, v) in place; store rotated keys and the values.

    `cosines`, `sines` are float32 [P, D / 2] by position; the rotation is `rotate_half` of transformers'
    `modeling_llama.py`. Row r goes to [slots[r], :, positions[r]] of `keys`, `values` [slots, H, P, D]. A position
    outside the slot stores nothing, so that a row decoded past its end harms no neighbour.
    """
    _, heads, length, dim = keys.shape
    assert (qkv.shape[1], cosines.shape[1]) == (3 * heads * dim, dim // 2)
    assert keys.stride() == values.stride()
    _rope_and_store[(qkv.shape[0], heads)](
        qkv, cosines, sines, slots, positions, keys, values,
        qkv.stride(0), cosines.stride(0), keys.stride(0), keys.stride(1), keys.stride(2),
        heads, length, dim // 2, num_warps=1,
    )  # fmt: skip


@triton.jit
def _rope_and_store(
    qkv, cosines, sines, slots, positions, keys, values,
    qkv_stride, table_stride, slot_stride, head_stride, position_stride,
    heads, length, half: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot, position = tl.load(slots + row), tl.load(positions + row)
    inside = (position >= 0) & (position < length)
    first = tl.arange(0, half)
    second = half + first
    cosine = tl.load(cosines + position * table_stride + first, mask=inside, other=0.0)
    sine = tl.load(sines + position * table_stride + first, mask=inside, other=0.0)
    query = qkv + row * qkv_stride + head * 2 * half
    key = query + heads * 2 * half
    value = key + heads * 2 * half
    to = slot * slot_stride + head * head_stride + position * position_stride

    x, y = tl.load(query + first).to(tl.float32), tl.load(query + second).to(tl.float32)
    tl.store(query + first, x * cosine - y * sine)
    tl.store(query + second, y * cosine + x * sine)
    x, y = tl.load(key + first).to(tl.float32), tl.load(key + second).to(tl.float32)
    tl.store(keys + to + first, x * cosine - y * sine, mask=inside)
    tl.store(keys + to + second, y * cosine + x * sine, mask=inside)
    tl.store(values + to + first, tl.load(value + first), mask=inside)
    tl.store(values + to + second, tl.load(value + second), mask=inside)


def decode_attention(
    q: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor,
    out: Tensor, partial_out: Tensor, partial_lse: Tensor,
) -> None:  # fmt: skip
    """Attention of one query per row: `out` = softmax(q · keys / sqrt D) · values.

    `q`, `out` are [R, H, D]; row r reads the first `lengths[r]` positions of slot `slots[r]` of `keys`, `values`
    [slots, H, P, D], and nothing else of them. A row of length 0 gives zeros. Scratch, float32: `partial_out`
    [R, H, splits(P), D] and `partial_lse` [R, H, splits(P)], the base-2 logarithm of a split's sum of exponentials.
    Split along the keys as in Flash-Decoding (https://crfm.stanford.edu/2023/10/12/flashdecoding.html).
    """
    rows, heads, dim = q.shape
    length = keys.shape[2]
    count = splits(length)
    assert keys.stride() == values.stride()
    assert partial_out.shape == (*partial_lse.shape, dim) == (rows, heads, count, dim)
    assert all(scratch.is_contiguous() for scratch in (partial_out, partial_lse))
    _attend_splits[(rows, heads, count)](
        q, keys, values, slots, lengths, partial_out, partial_lse,
        q.stride(0), q.stride(1), keys.stride(0), keys.stride(1), keys.stride(2),
        length, dim**-0.5, dim, SPLIT, num_warps=4,
    )  # fmt: skip
    _combine_splits[(rows, heads)](
        partial_out, partial_lse, lengths, out, out.stride(0), out.stride(1),
        length, count, dim, SPLIT, triton.next_power_of_2(count), num_warps=1,
    )  # fmt: skip


@triton.jit
def _attend_splits(
    q, keys, values, slots, lengths, partial_out, partial_lse,
    q_row_stride, q_head_stride, slot_stride, head_stride, position_stride,
    capacity, scale, dim: tl.constexpr, split_length: tl.constexpr,
):  # fmt: skip
    # One split a program: in a loop over splits, ptxas waits for each load of keys before it issues the next.
    row, head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length = tl.minimum(tl.load(lengths + row), capacity).to(tl.int32)
    if split * split_length >= length:
        return
    dims = tl.arange(0, dim)
    position = split * split_length + tl.arange(0, split_length)
    valid = position < length
    tile = tl.load(slots + row) * slot_stride + head * head_stride + position[:, None] * position_stride + dims[None, :]
    key = tl.load(keys + tile, mask=valid[:, None], other=0.0)
    value = tl.load(values + tile, mask=valid[:, None], other=0.0)  # in flight while the scores are computed
    query = tl.load(q + row * q_row_stride + head * q_head_stride + dims).to(tl.float32) * (scale * _LOG2_E)
    score = tl.where(valid, tl.sum(key.to(tl.float32) * query[None, :], 1), -_INF)
    top = tl.max(score, 0)
    weight = tl.exp2(score - top)
    total = tl.sum(weight, 0)
    to = (row * tl.num_programs(1) + head) * tl.num_programs(2) + split
    tl.store(partial_out + to * dim + dims, tl.sum(weight[:, None] * value.to(tl.float32), 0) / total)
    tl.store(partial_lse + to, top + tl.log2(total))


@triton.jit
def _combine_splits(
    partial_out, partial_lse, lengths, out, out_row_stride, out_head_stride,
    capacity, count, dim: tl.constexpr, split_length: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    length = tl.minimum(tl.load(lengths + row), capacity).to(tl.int32)
    dims = tl.arange(0, dim)
    split = tl.arange(0, block)
    exists = split < tl.cdiv(length, split_length)
    at = (row * tl.num_programs(1) + head) * count + split
    lse = tl.load(partial_lse + at, mask=exists, other=-_INF)
    part = tl.load(partial_out + at[:, None] * dim + dims[None, :], mask=exists[:, None], other=0.0)
    weight = tl.exp2(lse - tl.where(length > 0, tl.max(lse, 0), 0.0))
    total = tl.where(length > 0, tl.sum(weight, 0), 1.0)
    tl.store(out + row * out_row_stride + head * out_head_stride + dims, tl.sum(weight[:, None] * part, 0) / total)


def add_rms_norm(residual: Tensor, update: Tensor | None, weight: Tensor, eps: float, out: Tensor) -> None:
    """Add `update` to `residual` (float32, in place), both [R, d]; `out` = the sum's RMS norm times `weight` [d].

    `LlamaRMSNorm` of transformers' `modeling_llama.py`: x / sqrt(mean(x²) + eps).
    """
    rows, width = residual.shape
    _add_rms_norm[(rows,)](
        residual, update, weight, out, residual.stride(0), 0 if update is None else update.stride(0), out.stride(0),
        eps, width, triton.next_power_of_2(width), num_warps=4,
    )  # fmt: skip


@triton.jit
def _add_rms_norm(
    residual, update, weight, out, residual_stride, update_stride, out_stride, eps, width, block: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    valid = column < width
    at = residual + row * residual_stride + column
    x = tl.load(at, mask=valid, other=0.0)
    if update is not None:
        x += tl.load(update + row * update_stride + column, mask=valid, other=0.0).to(tl.float32)
        tl.store(at, x, mask=valid)
    x *= tl.rsqrt(tl.sum(x * x, 0) / width + eps)
    x *= tl.load(weight + column, mask=valid, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, x, mask=valid)


def silu_and_multiply(gate_up: Tensor, out: Tensor) -> None:
    """`out` [R, F] = silu(gate) · up, with `gate_up` [R, 2 F] holding the gate first."""
    rows, width = out.shape
    block = 512
    _silu_and_multiply[(rows, triton.cdiv(width, block))](
        gate_up, out, gate_up.stride(0), out.stride(0), width, block, num_warps=2
    )


@triton.jit
def _silu_and_multiply(gate_up, out, gate_up_stride, out_stride, width, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * block + tl.arange(0, block)
    valid = column < width
    at = gate_up + row * gate_up_stride + column
    gate = tl.load(at, mask=valid, other=0.0).to(tl.float32)
    up = tl.load(at + width, mask=valid, other=0.0).to(tl.float32)
    tl.store(out + row * out_stride + column, gate * tl.sigmoid(gate) * up, mask=valid)
