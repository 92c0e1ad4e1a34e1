"""The kernels of the decode step against plain torch: compiled on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.chatterbox import triton_kernels

GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
NAN = float("nan")
HEADS, DIM, POSITIONS, SLOTS = 2, 64, 300, 9
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(DEVICE, dtype)


def ids(*numbers: int) -> Tensor:
    return torch.tensor(numbers, device=DEVICE)


def close(actual: Tensor, expected: Tensor) -> None:
    tolerance = 1e-2 if actual.dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(actual.float(), expected.float(), atol=tolerance, rtol=tolerance)


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """`x` [H, D] at a position whose `cosine` and `sine` are [D / 2]."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


@PRECISIONS
def test_rope_rotates_queries_in_place_and_stores_keys_and_values(dtype: torch.dtype) -> None:
    """Only the named positions of the cache change; a position behind the slot's end changes none."""
    rows, slots, positions = 4, ids(3, 0, 8, 1), ids(0, 299, 17, POSITIONS)
    qkv = normal(rows, 3 * HEADS * DIM, dtype=dtype)
    cosines, sines = normal(POSITIONS, DIM // 2), normal(POSITIONS, DIM // 2)
    keys, values = normal(2, SLOTS, HEADS, POSITIONS, DIM, dtype=dtype)
    q, k, v = qkv.clone().view(rows, 3, HEADS, DIM).unbind(1)
    wanted_keys, wanted_values = keys.clone(), values.clone()
    triton_kernels.rope_and_store(qkv, cosines, sines, slots, positions, keys, values)
    for row in range(rows - 1):
        slot, position = slots[row], positions[row]
        angle = cosines[position], sines[position]
        close(qkv.view(rows, 3, HEADS, DIM)[row, 0], rotated(q[row], *angle))
        wanted_keys[slot, :, position] = rotated(k[row], *angle).to(dtype)
        wanted_values[slot, :, position] = v[row]
    close(keys, wanted_keys)
    assert torch.equal(values, wanted_values)


def attend(q: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor) -> Tensor:
    rows, splits = q.shape[0], triton_kernels.splits(keys.shape[2])
    out = torch.full_like(q, NAN, memory_format=torch.contiguous_format)
    partial_out = torch.full((rows, HEADS, splits, DIM), NAN, device=DEVICE)
    partial_lse = torch.full((rows, HEADS, splits), NAN, device=DEVICE)
    triton_kernels.decode_attention(q, keys, values, slots, lengths, out, partial_out, partial_lse)
    return out


@PRECISIONS
def test_attention_reads_only_what_its_row_holds(dtype: torch.dtype) -> None:
    """Ragged rows in any slots equal torch's attention among NaN, and the same bits when alone."""
    slots, lengths = ids(7, 2, 4, 0, 5, 1, 8, 3), ids(0, 1, 127, 128, 129, 256, 257, POSITIONS)
    cache = normal(2, SLOTS, HEADS, POSITIONS, DIM, dtype=dtype)
    held = torch.zeros(SLOTS, dtype=torch.int64, device=DEVICE).scatter(0, slots, lengths)
    beyond = torch.arange(POSITIONS, device=DEVICE) >= held[:, None]
    keys, values = cache.masked_fill_(beyond[:, None, :, None], NAN)
    q = normal(len(slots), 3 * HEADS * DIM, dtype=dtype).view(len(slots), 3, HEADS, DIM)[:, 0]
    q[0] = NAN
    out = attend(q, keys, values, slots, lengths)
    assert torch.equal(out[0], torch.zeros_like(out[0]))
    for row in range(1, len(slots)):
        k, v = cache[:, slots[row], :, : lengths[row]].float()
        close(out[row], F.scaled_dot_product_attention(q[row, :, None].float(), k, v)[:, 0])
    assert torch.equal(attend(q[4:5], keys, values, slots[4:5], lengths[4:5]), out[4:5])


@PRECISIONS
@pytest.mark.parametrize("updated", [True, False])
def test_the_residual_is_updated_and_normed(dtype: torch.dtype, updated: bool) -> None:
    """The sum stays in float32 in the residual; without an update it stays as it was."""
    width = 96
    residual, weight = normal(3, width), normal(width, dtype=dtype)
    update = normal(3, width, dtype=dtype) if updated else None
    out = torch.empty(3, width, dtype=dtype, device=DEVICE)
    total = residual.clone() if update is None else residual + update.float()
    triton_kernels.add_rms_norm(residual, update, weight, 1e-5, out)
    close(residual, total)
    close(out, total * torch.rsqrt(total.square().mean(-1, keepdim=True) + 1e-5) * weight.float())


@PRECISIONS
def test_the_gate_comes_first(dtype: torch.dtype) -> None:
    """silu of the first half times the second, for a width that fills no whole block."""
    gate_up = normal(3, 2 * 700, dtype=dtype)
    out = torch.empty(3, 700, dtype=dtype, device=DEVICE)
    triton_kernels.silu_and_multiply(gate_up, out)
    gate, up = gate_up.float().chunk(2, dim=-1)
    close(out, F.silu(gate) * up)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="needs a CUDA device")
def test_a_captured_step_follows_what_changes_on_the_device() -> None:
    """A replayed graph of `decode_attention` reads new slots and lengths."""
    keys, values = normal(2, SLOTS, HEADS, POSITIONS, DIM)
    q, slots, lengths = normal(2, HEADS, DIM), ids(1, 2), ids(10, 200)
    attend(q, keys, values, slots, lengths)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = attend(q, keys, values, slots, lengths)
    slots.copy_(ids(8, 0))
    lengths.copy_(ids(300, 0))
    graph.replay()
    assert torch.equal(out, attend(q, keys, values, slots, lengths))
