"""The kernels that stand for each other do: numba, SDPA and, in Triton's interpreter or on a GPU, Triton."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.workers.engine.chatterbox.checkpoints import open_tokens
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.config import RopeScaling
from workers.engine.chatterbox.cuda_kernels import TritonKernels
from workers.engine.chatterbox.graphs import Batch
from workers.engine.chatterbox.kernels import Kernels, Rows
from workers.engine.chatterbox.numba_kernels import NumbaKernels
from workers.engine.chatterbox.sampler import NOT_SAMPLED
from workers.engine.chatterbox.t3 import rotations
from workers.engine.chatterbox.torch_kernels import TorchKernels

CPU = torch.device("cpu")
HEADS, HEAD_DIM, POSITIONS, SLOTS = 2, 64, 200, 6


def case(dtype: torch.dtype, *, chunk: int) -> tuple[Tensor, Tensor, Tensor, Rows]:
    """qkv, keys, values and rows: ragged lengths and a dead row in a step, two runs from position 7 in a prefill."""
    generator = torch.Generator().manual_seed(chunk)
    if chunk == 1:
        slots, positions = torch.tensor([4, 0, 5, 2]), torch.tensor([0, 199, 0, 128])
        lengths = torch.tensor([1, 200, 0, 129])
    else:
        slots, positions = torch.tensor([3, 1]).repeat_interleave(chunk), torch.arange(7, 7 + chunk).repeat(2)
        lengths = positions + 1
    qkv = torch.randn(len(slots), 3 * HEADS * HEAD_DIM, generator=generator).to(dtype)
    keys, values = torch.randn(2, SLOTS, HEADS, POSITIONS, HEAD_DIM, generator=generator).to(dtype)
    for slot in range(SLOTS):
        mine = slots == slot
        reached = int(lengths[mine].max()) if mine.any() else 0
        keys[slot, :, reached:], values[slot, :, reached:] = torch.nan, torch.nan
    cosines, sines = rotations(RopeScaling(), HEAD_DIM, POSITIONS, CPU)
    return qkv, keys, values, Rows(slots, positions, lengths, cosines, sines, chunk, 7 if chunk > 1 else 0)


@pytest.mark.parametrize("chunk", [1, 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kernels", [NumbaKernels, TritonKernels])
def test_attention_agrees(kernels: type[NumbaKernels | TritonKernels], dtype: torch.dtype, chunk: int) -> None:
    """The same output and the same cache as SDPA, NaN around it, and zeros for the dead row."""
    if kernels is TritonKernels and torch.cuda.is_available():
        pytest.skip("compiled for the GPU here; tests/gpu compares it")
    tolerance = 2e-6 if dtype is torch.float32 else 2e-2
    results = []
    for implementation in (TorchKernels(dtype), kernels(dtype)):
        qkv, keys, values, rows = case(dtype, chunk=chunk)
        out = implementation.attend(qkv, keys, values, rows)
        results.append((out.float(), keys.float(), values.float()))
    expected, found = results
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance, equal_nan=True)
    assert torch.isfinite(found[0]).all()
    if chunk == 1:
        assert not found[0][2].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_and_gates_agree(dtype: torch.dtype) -> None:
    """Triton's are torch's, the float32 residual included."""
    if torch.cuda.is_available():
        pytest.skip("compiled for the GPU here; tests/gpu compares it")
    generator = torch.Generator().manual_seed(0)
    weight, gate_up = torch.randn(96, generator=generator), torch.randn(3, 256, generator=generator).to(dtype)
    residual, update = torch.randn(3, 96, generator=generator), torch.randn(3, 96, generator=generator).to(dtype)
    tolerance = 2e-6 if dtype is torch.float32 else 4e-2
    implementations: tuple[Kernels, ...] = (TorchKernels(dtype), TritonKernels(dtype))
    sums = [residual.clone(), residual.clone()]
    normed = [k.add_rms_norm(s, update, weight, 1e-5) for k, s in zip(implementations, sums, strict=True)]
    gated = [k.silu_and_multiply(gate_up.clone()) for k in implementations]
    torch.testing.assert_close(sums[1], sums[0])
    for theirs, ours in (normed, gated):
        assert ours.dtype is dtype
        torch.testing.assert_close(ours.float(), theirs.float(), rtol=0, atol=tolerance)


def test_triton_speaks_the_same_tokens(tiny: Path) -> None:
    """A whole engine on Triton's kernels draws what it draws on numba's, filters that sort included."""
    if torch.cuda.is_available():
        pytest.skip("compiled for the GPU here; tests/gpu compares it")
    requests = [
        ("One.", SamplingParameters(seed=1)),
        ("Another, longer text.", SamplingParameters(seed=2, cfg_weight=0.0)),
        ("A third.", SamplingParameters(seed=3, top_p=0.8, temperature=1.2)),
        ("Greedy.", SamplingParameters(seed=4, temperature=0.0)),
    ]
    spoken = []
    for kernels in (None, TritonKernels(torch.float32)):
        engine = open_tokens(tiny, max_rows=8, positions=160)
        if kernels is not None:
            engine._step.kernels = engine.t3._kernels = kernels
        sequences = [
            engine.add(text, text, parameters=parameters, max_tokens=6 + n)
            for n, (text, parameters) in enumerate(requests)
        ]
        engine.run()
        spoken.append([sequence.tokens for sequence in sequences])
    assert spoken[0] == spoken[1]


def test_a_batch_is_padded_with_dead_rows() -> None:
    """Rows, leads and lines of two sequences, one without guidance, and nothing of the batch before."""
    batch = Batch.empty(8, 8, scratch=9, device=CPU)
    batch.place([(0, 1), (2, 3), (4, 5), (6, 7)], scratch=9)
    batch.place([(5, 2), (7,)], scratch=9)
    assert batch.slots.tolist() == [5, 2, 7, 9, 9, 9, 9, 9]
    assert batch.leads.tolist() == [5, 5, 7, 9, 9, 9, 9, 9]
    assert batch.lines.cond.tolist()[:2] == [0, 2]
    assert batch.lines.uncond.tolist()[:2] == [1, 2]
    assert batch.lines.leads.tolist() == [5, 7, 9, 9, 9, 9, 9, 9]
    assert batch.lines.emitted.tolist() == [NOT_SAMPLED] * 8
