"""Kernels for a CPU, compiled by numba: attention at the speed of the memory, each row by itself.

torch's own attention reads bfloat16 caches seven times slower than memory allows when there is one query per row, and
in float32 its result for a row depends in the last bit on who else is in the batch (docs/lab-notes.md).
"""

# What numba compiles has other types inside than at its call (scalars, views):
# mypy: disallow-untyped-decorators=False
# ruff: noqa: PLR0917 - compiled functions take arrays in the order of their data flow

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic
from torch import Tensor

from workers.engine.chatterbox.kernels import Rows
from workers.engine.chatterbox.torch_kernels import TorchKernels

_compiled: Any = numba.njit(
    parallel=True,
    nogil=True,
    error_model="numpy",
    # All of fast-math but what would let it assume that there are no infinities and no NaN.
    fastmath={"reassoc", "contract", "nsz", "arcp"},
)
_intrinsic: Any = intrinsic
_thread: Any = numba.get_thread_id  # type: ignore[attr-defined]  # documented, and left out of the package's types

Array = npt.NDArray[Any]


@_intrinsic
def _widen(_context: Any, x: Any) -> Any:
    """float32 from float32, or from bfloat16 given as its 16 bits: the upper half of the float32 of the same value."""
    if x == types.uint16:

        def shift(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            bits = builder.zext(arguments[0], ir.IntType(32))
            return builder.bitcast(builder.shl(bits, ir.Constant(ir.IntType(32), 16)), ir.FloatType())

        return types.float32(types.uint16), shift
    return types.float32(types.float32), lambda _target, _builder, _signature, arguments: arguments[0]


@_intrinsic
def _narrow(_context: Any, _x: Any, like: Any) -> Any:
    """The reverse of `_widen`, to the type of `like`, rounded to nearest even; a NaN stays one."""
    if like == types.uint16:

        def rounded(_target: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            word, half = ir.IntType(32), ir.IntType(16)
            bits = builder.bitcast(arguments[0], word)
            odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
            up = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
            result = builder.trunc(builder.lshr(up, ir.Constant(word, 16)), half)
            is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
            return builder.select(is_nan, ir.Constant(half, 0x7FC0), result)

        return types.uint16(types.float32, types.uint16), rounded
    return types.float32(types.float32, types.float32), lambda _target, _builder, _signature, arguments: arguments[0]


@_compiled
def _rotate_and_store(
    qkv: Array, cosines: Array, sines: Array, slots: Array, positions: Array, keys: Array, values: Array, queries: Array
) -> None:
    """qkv [N, 3, heads, head_dim]; rotated queries, scaled by head_dim**-0.5, go to `queries` [N, heads, head_dim]."""
    lines, _, heads, head_dim = qkv.shape
    half = head_dim // 2
    scale = np.float32(head_dim**-0.5)
    for i in prange(lines * heads):
        n, h = i % lines, i // lines
        if not 0 <= positions[n] < keys.shape[2]:
            continue  # nothing here checks bounds, and behind a slot lies another
        key, value = keys[slots[n], h, positions[n]], values[slots[n], h, positions[n]]
        for d in range(half):
            cosine, sine = cosines[positions[n], d], sines[positions[n], d]
            first, second = _widen(qkv[n, 0, h, d]), _widen(qkv[n, 0, h, d + half])
            queries[n, h, d] = (first * cosine - second * sine) * scale
            queries[n, h, d + half] = (second * cosine + first * sine) * scale
            first, second = _widen(qkv[n, 1, h, d]), _widen(qkv[n, 1, h, d + half])
            key[d] = _narrow(first * cosine - second * sine, key[d])
            key[d + half] = _narrow(second * cosine + first * sine, key[d])
        for d in range(head_dim):
            value[d] = qkv[n, 2, h, d]


@_compiled
def _attend(
    queries: Array, keys: Array, values: Array, slots: Array, lengths: Array, out: Array, weights: Array
) -> None:
    """Softmax attention of one query per line; `weights` float32 [threads, positions] is scratch."""
    lines, heads, head_dim = queries.shape
    for i in prange(lines * heads):
        n, h = i % lines, i // lines
        length = lengths[n]
        key, value = keys[slots[n], h], values[slots[n], h]
        query, row = queries[n, h], out[n, h]
        weight = weights[_thread()]
        largest = np.float32(-np.inf)
        for t in range(length):
            score = np.float32(0)
            for d in range(head_dim):
                score += query[d] * _widen(key[t, d])
            weight[t] = score
            # Written so that a NaN becomes the largest and spoils its own row visibly.
            if not score <= largest:
                largest = score
        total = np.float32(0)
        for t in range(length):
            weight[t] = np.exp(weight[t] - largest)
            total += weight[t]
        for d in range(head_dim):
            row[d] = 0
        for t in range(length):
            share = weight[t] / total
            for d in range(head_dim):
                row[d] += share * _widen(value[t, d])


class NumbaKernels(TorchKernels):
    """Attention by numba, the rest by torch."""

    def attend(self, qkv: Tensor, keys: Tensor, values: Tensor, rows: Rows) -> Tensor:
        lines, (heads, positions, head_dim) = len(qkv), keys.shape[1:]
        slots, lengths = rows.slots.numpy(), rows.lengths.numpy()
        caches = _bits(keys), _bits(values)
        queries = np.empty((lines, heads, head_dim), np.float32)
        out = torch.empty(lines, heads, head_dim)
        where = (rows.cosines.numpy(), rows.sines.numpy(), slots, rows.positions.numpy())
        _rotate_and_store(_bits(qkv).reshape(lines, 3, heads, head_dim), *where, *caches, queries)
        scratch = np.empty((numba.get_num_threads(), positions), np.float32)
        _attend(queries, *caches, slots, lengths, out.numpy(), scratch)
        return out.view(lines, -1).to(self.dtype)


def _bits(tensor: Tensor) -> Array:
    """A view as numpy has it: float32 as it is, bfloat16 as its bits."""
    return (tensor if tensor.dtype is torch.float32 else tensor.view(torch.uint16)).numpy()
