"""From logits to tokens on the device: guidance, penalties, filters and seeded noise, with the state they work on.

The stages and their arithmetic are those of the logits processors of transformers 5, which upstream calls; their order
is the model's (`T3Config.processors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.config import Processor, T3Config
from workers.engine.chatterbox.noise import gumbel
from workers.engine.chatterbox.transfer import upload

NOT_SAMPLED: Final = -2
"""Emitted for a line that is dead or whose sequence had ended already."""

BROKEN: Final = -1
"""Emitted when the logits are not finite; the sequence is over."""

SORTING: Final[frozenset[Processor]] = frozenset({"top_k", "top_p"})
"""Stages that sort the vocabulary; left out of steps in which no sequence needs them."""

_CFG, _TEMPERATURE, _MIN_P, _PENALTY = range(4)

_GREEDY = 1e-3
"""Temperatures below this take the likeliest token; scores divided by less could overflow."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Which rows of a batch are sampled, S of them; int64 tensors on the device.

    `cond` and `uncond` [S] index rows, the same one twice without guidance. `leads` [S] is the slot that holds the
    sequence's state, the scratch slot for a dead line. `emitted` [S] receives the tokens.
    """

    cond: Tensor
    uncond: Tensor
    leads: Tensor
    emitted: Tensor


class SamplingState:
    """What changes from request to request and from step to step, one place per slot and one for dead lines.

    All of it lives in device tensors, so that a captured step serves every request. `parameters` is float32
    [slots + 1, 4]: cfg_weight, temperature, min_p, repetition_penalty. `lengths` counts positions in the KV cache,
    `steps` the tokens drawn, `tokens` holds the last of them, `seen` which ones have occurred.
    """

    def __init__(self, config: T3Config, *, slots: int, device: torch.device) -> None:
        places = slots + 1
        self.config = config
        self.scratch = slots
        self.parameters = torch.zeros(places, 4, device=device)
        self.top_p = torch.ones(places, device=device)
        self.top_k = torch.zeros(places, dtype=torch.int64, device=device)
        self.seeds = torch.zeros(places, dtype=torch.int64, device=device)
        self.steps = torch.zeros(places, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(places, dtype=torch.int64, device=device)
        self.tokens = torch.zeros(places, dtype=torch.int64, device=device)
        self.done = torch.ones(places, dtype=torch.bool, device=device)
        self.seen = torch.zeros(places, config.speech_vocabulary, dtype=torch.bool, device=device)
        self._device = device

    def admit(self, slot: int, parameters: SamplingParameters, *, seed: int, length: int) -> None:
        """Begin a sequence whose prompt of `length` positions is in `slot`; its first input is start-of-speech."""
        weights = (
            parameters.cfg_weight,
            parameters.temperature if parameters.temperature >= _GREEDY else 0.0,
            parameters.min_p,
            parameters.repetition_penalty,
            parameters.top_p,
        )
        numbers = (seed, length, self.config.start_speech, parameters.top_k)
        row = upload(torch.tensor(weights, dtype=torch.float32), self._device)
        whole = upload(torch.tensor(numbers, dtype=torch.int64), self._device)
        self.parameters[slot] = row[:4]
        self.top_p[slot] = row[4]
        self.seeds[slot], self.lengths[slot], self.tokens[slot], self.top_k[slot] = whole.unbind()
        self.steps[slot].zero_()
        self.done[slot].fill_(False)
        self.seen[slot].zero_()
        self.seen[slot, self.config.start_speech].fill_(True)


def needs_sorting(parameters: SamplingParameters, config: T3Config) -> bool:
    """Whether this request's filters sort the vocabulary."""
    return ("top_p" in config.processors and parameters.top_p < 1) or (
        "top_k" in config.processors and parameters.top_k > 0
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """The parameters of S lines, each [S, 1], and what their sequences have drawn, [S, vocabulary]."""

    temperature: Tensor
    min_p: Tensor
    penalty: Tensor
    top_p: Tensor
    top_k: Tensor
    seen: Tensor


def _repetition_penalty(scores: Tensor, line: _Line) -> Tensor:
    penalised = torch.where(scores < 0, scores * line.penalty, scores / line.penalty)
    return torch.where(line.seen, penalised, scores)


def _temperature(scores: Tensor, line: _Line) -> Tensor:
    return scores / torch.where(line.temperature > 0, line.temperature, 1)


def _min_p(scores: Tensor, line: _Line) -> Tensor:
    """Keeps what has at least `min_p` times the probability of the likeliest: a threshold, no softmax."""
    return scores.masked_fill(scores - scores.amax(-1, keepdim=True) < torch.log(line.min_p), -torch.inf)


def _top_k(scores: Tensor, line: _Line) -> Tensor:
    """Keeps the `top_k` likeliest, and what ties with the last of them; 0 keeps all."""
    size = scores.shape[-1]
    rank = torch.where(line.top_k > 0, line.top_k, size).clamp(max=size) - 1
    smallest = scores.sort(dim=-1, descending=True).values.gather(-1, rank)
    return scores.masked_fill(scores < smallest, -torch.inf)


def _top_p(scores: Tensor, line: _Line) -> Tensor:
    """Drops the unlikeliest whose probabilities together stay within 1 - `top_p`, never the likeliest."""
    ascending, order = scores.sort(dim=-1)
    drop = ascending.softmax(-1).cumsum(-1) <= 1 - line.top_p
    drop[..., -1] = False
    return scores.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), -torch.inf)


_STAGES: Mapping[Processor, Callable[[Tensor, _Line], Tensor]] = {
    "repetition_penalty": _repetition_penalty,
    "temperature": _temperature,
    "min_p": _min_p,
    "top_k": _top_k,
    "top_p": _top_p,
}


def scores(logits: Tensor, lines: Lines, state: SamplingState, *, filtered: bool) -> Tensor:
    """Logits [N, vocabulary] to the scores of S lines, -inf where a token is filtered out; float32 [S, vocabulary].

    Guidance is c + w (c - u). Without `filtered`, the stages that sort are left out; the result is the same if no
    line asks for them.
    """
    parameters = state.parameters[lines.leads]
    line = _Line(
        temperature=parameters[:, _TEMPERATURE, None],
        min_p=parameters[:, _MIN_P, None],
        penalty=parameters[:, _PENALTY, None],
        top_p=state.top_p[lines.leads, None],
        top_k=state.top_k[lines.leads, None],
        seen=state.seen[lines.leads],
    )
    result = logits[lines.cond]
    for processor in state.config.processors:
        if processor == "cfg":
            result = result + parameters[:, _CFG, None] * (result - logits[lines.uncond])
        elif filtered or processor not in SORTING:
            result = _STAGES[processor](result, line)
    return result


def draw(scores: Tensor, noise: Tensor) -> Tensor:
    """The argmax of scores plus Gumbel noise [S, vocabulary]: a draw from their softmax; int64 [S]."""
    return (scores + noise).argmax(-1)


def sample(logits: Tensor, lines: Lines, state: SamplingState, *, filtered: bool) -> None:
    """Draw a token for every live line and move its sequence's state one step on; nothing waits for the device."""
    leads = lines.leads
    sound = torch.isfinite(logits).all(-1)
    sound = sound[lines.cond] & sound[lines.uncond]
    noise = gumbel(state.seeds[leads], state.steps[leads], logits.shape[-1])
    noise = noise.masked_fill(state.parameters[leads, _TEMPERATURE, None] == 0, 0)
    token = draw(scores(logits, lines, state, filtered=filtered), noise)
    live = (leads != state.scratch) & ~state.done[leads]
    move_on(torch.where(sound, token, BROKEN), live, lines, state)


def move_on(token: Tensor, live: Tensor, lines: Lines, state: SamplingState) -> None:
    """Write S drawn tokens, BROKEN for those without one, into the state of the lines that are live."""
    leads = lines.leads
    drawn = live & (token != BROKEN)
    state.done[leads] |= live & ((token == BROKEN) | (token == state.config.stop_speech))
    state.tokens[leads] = torch.where(drawn, token, state.tokens[leads])
    state.seen[leads, state.tokens[leads]] |= drawn
    state.steps[leads] += drawn
    state.lengths[leads] += drawn
    lines.emitted.copy_(torch.where(live, token, NOT_SAMPLED))
