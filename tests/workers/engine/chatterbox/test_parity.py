"""Ours against upstream as installed, on the same random weights, in float32 on a CPU."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.workers.engine.chatterbox.oracle import Upstream
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox import sampler
from workers.engine.chatterbox.kernels import Rows
from workers.engine.chatterbox.noise import gumbel
from workers.engine.chatterbox.sampler import Lines, SamplingState
from workers.engine.chatterbox.token_engine import TokenEngine

TEXT = "The quick brown fox jumps over the lazy dog."


class Forced:
    """Kernels that record the logits and draw the tokens they are told to."""

    def __init__(self, engine: TokenEngine, tokens: list[int]) -> None:
        self._kernels = engine._kernels
        self._tokens = iter(tokens)
        self.logits: list[Tensor] = []

    def add_rms_norm(self, residual: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> Tensor:
        return self._kernels.add_rms_norm(residual, update, weight, eps)

    def attend(self, qkv: Tensor, keys: Tensor, values: Tensor, rows: Rows) -> Tensor:
        return self._kernels.attend(qkv, keys, values, rows)

    def silu_and_multiply(self, gate_up: Tensor) -> Tensor:
        return self._kernels.silu_and_multiply(gate_up)

    def sample(self, logits: Tensor, lines: Lines, state: SamplingState, *, filtered: bool) -> None:
        assert not filtered
        self.logits.append(logits.clone())
        token = torch.full_like(lines.leads, next(self._tokens))
        sampler.move_on(token, lines.leads != state.scratch, lines, state)


def token_ids(engine: TokenEngine, text: str = TEXT) -> list[int]:
    return engine._text.encode(text, longest=400)


@pytest.mark.parametrize("exaggeration", [0.0, 0.5, 1.3])
def test_prompt_embeddings(wide_engine: TokenEngine, upstream: Upstream, exaggeration: float) -> None:
    """Both rows of the prompt are upstream's, the position-only text of the unconditional one included."""
    ids = token_ids(wide_engine)
    assert wide_engine.default_voice is not None
    ours = wide_engine._prompts.encode(ids, wide_engine.default_voice, exaggeration, 2)
    theirs = upstream.prompt(ids, exaggeration)
    assert ours.shape[1] == wide_engine.config.prompt_positions(len(ids))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    assert not torch.equal(theirs[0], theirs[1])


@pytest.mark.parametrize("attention", ["numba", "sdpa"])
@pytest.mark.parametrize("cfg_weight", [0.0, 0.5, 1.0])
def test_logits_under_teacher_forcing(
    wide_engine: TokenEngine, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, cfg_weight: float, attention: str
) -> None:
    """Every step's logits, of both rows, are within 1e-5 of upstream's when both are given the same tokens."""
    forced = torch.randint(0, 6561, (24,), generator=torch.Generator().manual_seed(1)).tolist()
    theirs = upstream.run(token_ids(wide_engine), lambda step, _: forced[step], steps=24, cfg_weight=cfg_weight or 0.5)
    kernels = Forced(wide_engine, forced)
    if attention == "sdpa":
        from workers.engine.chatterbox.torch_kernels import TorchKernels  # noqa: PLC0415 - the variant under test

        kernels._kernels = TorchKernels(torch.float32)
    monkeypatch.setattr(wide_engine._step, "kernels", kernels)
    monkeypatch.setattr(wide_engine.t3, "_kernels", kernels)
    sequence = wide_engine.add("forced", TEXT, parameters=SamplingParameters(cfg_weight=cfg_weight), max_tokens=24)
    wide_engine.run()
    assert sequence.tokens == forced
    rows = 1 if cfg_weight == 0 else 2
    assert len(kernels.logits) == 24
    for ours, other in zip(kernels.logits, theirs.logits[:24], strict=True):  # upstream computes one more for nobody
        torch.testing.assert_close(ours[:rows], other[:rows], rtol=0, atol=1e-5)
    assert any((a - b).abs().max() > 1e-2 for a, b in pairwise(theirs.logits))


def test_greedy_tokens(wide_engine: TokenEngine, upstream: Upstream) -> None:
    """Over 220 steps the likeliest token is upstream's wherever its lead is more than rounding; 95 % of steps count."""
    steps = 220
    ours = wide_engine.add("greedy", TEXT, parameters=SamplingParameters(temperature=0), max_tokens=steps)
    wide_engine.run()
    theirs = upstream.run(
        token_ids(wide_engine), lambda step, _: ours.tokens[step], steps=len(ours.tokens), temperature=1.0, min_p=0.0
    )
    clear = 0
    for token, probabilities in zip(ours.tokens, theirs.probabilities, strict=True):
        best = probabilities.topk(2)
        if best.values[0] > best.values[1] * (1 + 1e-5):
            clear += 1
            assert token == best.indices[0]
    assert len(ours.tokens) >= 200
    assert clear >= 0.95 * len(ours.tokens)
    assert len(set(ours.tokens)) > 20


@pytest.mark.parametrize(
    "parameters",
    [
        SamplingParameters(seed=7),
        SamplingParameters(seed=8, cfg_weight=1.0, temperature=1.4, min_p=0.0, repetition_penalty=2.0),
        SamplingParameters(seed=9, temperature=1.0, min_p=0.02, top_p=0.9, exaggeration=1.1),
    ],
)
def test_drawn_tokens(wide_engine: TokenEngine, upstream: Upstream, parameters: SamplingParameters) -> None:
    """With our noise in place of its own, upstream draws the same tokens from the same filtered probabilities."""
    assert parameters.seed is not None
    seed = torch.tensor([parameters.seed])

    def choose(step: int, probabilities: Tensor) -> int:
        noise = gumbel(seed, torch.tensor([step]), len(probabilities))[0]
        return int((probabilities.log() + noise).argmax())

    ours = wide_engine.add("drawn", TEXT, parameters=parameters, max_tokens=60)
    wide_engine.run()
    theirs = upstream.run(
        token_ids(wide_engine),
        choose,
        steps=60,
        exaggeration=parameters.exaggeration,
        temperature=parameters.temperature,
        min_p=parameters.min_p,
        top_p=parameters.top_p,
        repetition_penalty=parameters.repetition_penalty,
        cfg_weight=parameters.cfg_weight,
    )
    assert ours.tokens == theirs.tokens
    assert len(set(ours.tokens)) > 10
