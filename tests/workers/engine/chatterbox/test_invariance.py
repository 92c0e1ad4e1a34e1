"""A request's tokens are its own: the same whatever runs beside it, wherever it lies, whenever it joined."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import pytest
import torch

from tests.workers.engine.chatterbox.checkpoints import open_tokens
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.linear import DenseLinear, Linear, agreeing_sizes, linear
from workers.engine.chatterbox.sampler import Lines, SamplingState
from workers.engine.chatterbox.token_engine import TokenEngine

SUBJECT = "The same words, whoever else is speaking."
TEXTS = ("Short.", "A text of middling length, with a comma.", "Something that goes on for rather longer. " * 3)


def alone(engine: TokenEngine, parameters: SamplingParameters) -> list[int]:
    sequence = engine.add("alone", SUBJECT, parameters=parameters, max_tokens=40)
    engine.run()
    return sequence.tokens


def among_others(engine: TokenEngine, parameters: SamplingParameters, before: int) -> list[int]:
    """Joins after `before` ticks of a crowd that comes and goes, one of which is cancelled."""
    texts = cycle(TEXTS)
    for number in range(9):
        other = SamplingParameters(
            seed=number, cfg_weight=0.0 if number % 3 == 0 else 0.7, top_p=0.9 if number == 4 else 1.0
        )
        engine.add(f"other-{number}", next(texts), parameters=other, max_tokens=5 + 7 * number)
    for _ in range(before):
        engine.tick()
    engine.cancel("other-2")
    sequence = engine.add("subject", SUBJECT, parameters=parameters, max_tokens=40)
    while not sequence.finished:
        engine.tick()
    engine.run()
    return sequence.tokens


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cfg_weight", [0.0, 0.5])
def test_same_tokens_in_any_company(wide: Path, precision: str, cfg_weight: float) -> None:
    """On a CPU, tokens of a seed do not depend on neighbours, slots, join time or reuse."""
    engine = open_tokens(wide, precision=precision, max_rows=12)
    parameters = SamplingParameters(seed=11, cfg_weight=cfg_weight)
    expected = alone(engine, parameters)
    assert len(set(expected)) > 10
    assert alone(engine, SamplingParameters(seed=12, cfg_weight=cfg_weight)) != expected
    for before in (0, 17):
        assert among_others(engine, parameters, before) == expected
    assert engine.scheduler.free_slots == 12


def test_same_logits_in_any_company(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not to within rounding but to the last bit, so no near-tie can tip over."""
    engine = open_tokens(wide, max_rows=12)
    sample, found = engine._step.kernels.sample, list[torch.Tensor]()

    def record(logits: torch.Tensor, lines: Lines, state: SamplingState, *, filtered: bool) -> None:
        mine = (state.seeds[lines.leads] == 11) & (lines.leads != state.scratch) & ~state.done[lines.leads]
        rows = torch.cat([lines.cond[mine], lines.uncond[mine]])
        if len(rows) and engine.scheduler.running:
            found.append(logits[rows].clone())
        sample(logits, lines, state, filtered=filtered)

    monkeypatch.setattr(engine._step.kernels, "sample", record)
    parameters = SamplingParameters(seed=11)
    alone(engine, parameters)
    expected, found[:] = list(found), []
    among_others(engine, parameters, 9)
    assert len(found) == len(expected) == 40
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_what_is_dead_has_no_influence(wide: Path) -> None:
    """With NaN in every slot and every earlier state, the tokens are the same and no neighbour fails."""
    for attention in ("numba", "sdpa"):
        engine = open_tokens(wide, attention=attention)
        parameters = SamplingParameters(seed=5)
        expected = alone(engine, parameters)
        engine.slots.keys.fill_(torch.nan)
        engine.slots.values.fill_(torch.nan)
        engine._state.parameters.fill_(torch.nan)
        assert among_others(engine, parameters, 4) == expected


def test_a_strict_engine_knows_one_size(tiny: Path) -> None:
    """Every step is padded to all rows, and the tokens are those of any other company."""
    engine = open_tokens(tiny, strict=True)
    parameters = SamplingParameters(seed=3)
    assert engine.steps.sizes == [engine.slots.count]
    assert among_others(engine, parameters, 6) == alone(engine, parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sizes_that_agree_do(dtype: torch.dtype) -> None:
    """Rows of the sizes kept have the same bits in a batch of any of them, wherever they stand."""
    generator = torch.Generator().manual_seed(2)
    product = linear(torch.randn(3072, 1024, generator=generator), device=torch.device("cpu"), dtype=dtype)
    sizes = agreeing_sizes([product], range(1, 40), dtype)
    assert sizes[-1] == 39
    for _ in range(4):
        x = torch.randn(39, 1024, generator=generator).to(dtype)
        whole = product(x)
        for size in sizes:
            for start in (*range(0, 39 - size, size), 39 - size):
                rows = slice(start, start + size)
                assert torch.equal(product(x[rows].contiguous()), whole[rows]), (size, start)


def test_a_size_that_differs_is_dropped() -> None:
    """A product whose kernel changes with the number of rows is used only where it agrees with the largest."""

    class Fickle(DenseLinear):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(x) + (1e-6 if len(x) in {2, 3} else 0)

    fickle: Linear = Fickle(torch.eye(8))
    assert agreeing_sizes([fickle], [2, 3, 4, 6], torch.float32) == [4, 6]
