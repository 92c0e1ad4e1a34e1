"""Stages, noise and state of sampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from workers.engine.base import SamplingParameters
from workers.engine.chatterbox import sampler
from workers.engine.chatterbox.config import Processor, T3Config
from workers.engine.chatterbox.noise import gumbel, philox, uniform
from workers.engine.chatterbox.sampler import BROKEN, NOT_SAMPLED, Lines, SamplingState

VOCABULARY = 8194
CPU = torch.device("cpu")
CONFIG = T3Config(
    layers=1,
    dim=64,
    heads=1,
    ffn_dim=64,
    text_vocabulary=704,
    speech_vocabulary=VOCABULARY,
    text_positions=2050,
    speech_positions=4100,
    prompt_queries=32,
    speaker_dim=256,
)
ORDERS: dict[str, tuple[Processor, ...]] = {
    "english": ("cfg", "repetition_penalty", "temperature", "min_p", "top_p"),
    "turbo": ("temperature", "top_k", "top_p", "repetition_penalty"),
}


def lines(*leads: int) -> Lines:
    count = len(leads)
    rows = torch.arange(count)
    return Lines(2 * rows, 2 * rows + 1, torch.tensor(leads), torch.zeros(count, dtype=torch.int64))


def upstream_warpers(order: tuple[Processor, ...], parameters: SamplingParameters) -> LogitsProcessorList:
    made: dict[str, Callable[[], Any]] = {
        "repetition_penalty": lambda: RepetitionPenaltyLogitsProcessor(parameters.repetition_penalty),
        "temperature": lambda: TemperatureLogitsWarper(parameters.temperature),
        "min_p": lambda: MinPLogitsWarper(parameters.min_p),
        "top_k": lambda: TopKLogitsWarper(parameters.top_k),
        "top_p": lambda: TopPLogitsWarper(parameters.top_p),
    }
    return LogitsProcessorList([made[name]() for name in order if name != "cfg"])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "parameters",
    [
        SamplingParameters(top_k=1000, top_p=0.95),
        SamplingParameters(cfg_weight=0.0, temperature=0.3, min_p=0.2, top_k=7, top_p=0.5, repetition_penalty=3.0),
        SamplingParameters(cfg_weight=2.0, temperature=2.5, min_p=0.001, top_k=1, top_p=0.05, repetition_penalty=0.7),
        SamplingParameters(cfg_weight=1.0, temperature=1.0, min_p=1.0, top_k=VOCABULARY, top_p=0.999),
    ],
)
def test_filtered_probabilities(order: str, parameters: SamplingParameters) -> None:
    """In each model's order, the distribution is the one that the processors upstream calls arrive at."""
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.randn(2, VOCABULARY, generator=generator)
    history = torch.randint(0, VOCABULARY, (1, 50), generator=generator)
    state = SamplingState(replace(CONFIG, processors=ORDERS[order]), slots=3, device=CPU)
    state.admit(1, parameters, seed=0, length=5)
    state.seen[1, history[0]] = True
    ours = sampler.scores(logits, lines(1), state, filtered=True).softmax(-1)

    combined = logits[:1]
    if "cfg" in ORDERS[order]:
        combined = combined + parameters.cfg_weight * (combined - logits[1:])
    seen = torch.cat([torch.tensor([[CONFIG.start_speech]]), history], dim=1)
    processors: Any = upstream_warpers(ORDERS[order], parameters)  # its types want a LongTensor, which no call returns
    theirs = processors(seen, combined).softmax(-1)
    assert torch.equal(ours > 0, theirs > 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-9)


def test_without_sorting_the_rest_is_unchanged() -> None:
    """Leaving the sorting stages out changes nothing for a line that does not ask for them."""
    logits = torch.randn(2, VOCABULARY, generator=torch.Generator().manual_seed(4))
    state = SamplingState(CONFIG, slots=1, device=CPU)
    state.admit(0, SamplingParameters(), seed=0, length=5)
    assert torch.equal(
        sampler.scores(logits, lines(0), state, filtered=False), sampler.scores(logits, lines(0), state, filtered=True)
    )


def test_philox_gives_the_published_numbers() -> None:
    """The known-answer vectors that Random123 ships for Philox4x32-10."""

    def words(*values: int) -> tuple[Tensor, ...]:
        return tuple(torch.tensor(value) for value in values)

    def run(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
        a, b, c, d = words(*counter)
        k0, k1 = words(*key)
        return [int(word) for word in philox((a, b, c, d), (k0, k1))]

    ones = 0xFFFFFFFF
    assert run((0, 0, 0, 0), (0, 0)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert run((ones,) * 4, (ones, ones)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert run((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0)) == [
        0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1,
    ]  # fmt: skip


@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 5000))
def test_noise_depends_on_its_own_seed_and_step_alone(seed: int, step: int) -> None:
    """A line's noise is the same whichever line it is, finite, and another one for the next step or seed."""
    seeds, steps = torch.tensor([seed ^ 1, seed, seed]), torch.tensor([step, step + 1, step])
    together = gumbel(seeds, steps, VOCABULARY)
    alone = gumbel(torch.tensor([seed]), torch.tensor([step]), VOCABULARY)
    assert torch.equal(together[2], alone[0])
    assert torch.isfinite(together).all()
    assert not torch.equal(together[0], together[2])
    assert not torch.equal(together[1], together[2])


def test_noise_is_uniform() -> None:
    """400,000 numbers of one seed pass a Kolmogorov-Smirnov test and never reach 0 or 1."""
    numbers = uniform(torch.full((50,), 12345), torch.arange(50), 8000).flatten().numpy()
    assert 0 < numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    assert kstest(numbers[:200_000], "uniform").pvalue > 0.01


def test_draws_follow_the_probabilities() -> None:
    """20,000 draws over six tokens fit their softmax by a chi-square test."""
    probabilities = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.04, 0.01])
    draws = 20_000
    noise = gumbel(torch.full((draws,), 99), torch.arange(draws), len(probabilities))
    counts = torch.bincount(sampler.draw(probabilities.log().expand(draws, -1), noise), minlength=6)
    assert (
        chisquare(counts.numpy(), draws * probabilities.double().numpy() / probabilities.double().sum().item()).pvalue
        > 0.01
    )


def test_a_step_moves_only_live_lines() -> None:
    """A drawn token is remembered; a line that has ended, is dead or is broken leaves its state as it was."""
    state = SamplingState(CONFIG, slots=4, device=CPU)
    for slot in range(4):
        state.admit(slot, SamplingParameters(temperature=0), seed=slot, length=10)
    state.done[1] = True
    logits = torch.zeros(10, VOCABULARY)
    logits[0, 17] = logits[2, 18] = logits[6, CONFIG.stop_speech] = 9
    logits[4, 5] = np.nan
    batch = lines(0, 1, 2, 3, state.scratch)
    sampler.sample(logits, batch, state, filtered=False)
    assert batch.emitted.tolist() == [17, NOT_SAMPLED, BROKEN, CONFIG.stop_speech, NOT_SAMPLED]
    assert state.lengths.tolist() == [11, 10, 10, 11, 0]
    assert state.steps.tolist() == [1, 0, 0, 1, 0]
    assert state.done.tolist() == [False, True, True, True, True]
    assert state.seen.sum(-1).tolist() == [2, 1, 1, 2, 0]
    assert state.seen[0].nonzero().flatten().tolist() == [17, CONFIG.start_speech]
