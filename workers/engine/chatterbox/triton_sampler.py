"""The sampler as one Triton kernel: a captured launch that draws a token for every line of a batch.

Like `triton_kernels.py`: it writes into tensors of its caller, allocates nothing and reads nothing back. The stages and
the noise are those of `sampler.py` and `noise.py`, in the order of the Llama family, without the ones that sort.
"""

# Triton ships no types, and a kernel's arguments have others inside it (pointers, tiles) than at its launch:
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False, disallow-untyped-decorators=False
# ruff: noqa: PLR0917 - kernels and their launchers take tensors in the order of their data flow

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_INF = tl.constexpr(float("inf"))
_2_TO_MINUS_23 = tl.constexpr(2.0**-23)


def sample(
    logits: Tensor, cond: Tensor, uncond: Tensor, leads: Tensor,
    seen: Tensor, parameters: Tensor, seeds: Tensor, steps: Tensor, done: Tensor, tokens: Tensor, lengths: Tensor,
    emitted: Tensor, *, stop: int, processed: bool = False,
) -> None:  # fmt: skip
    """Draw one token for each of S lines into `emitted` [S], and advance the state of its slot.

    Line s has the logits (float32 [R, V]) of rows `cond[s]` and `uncond[s]`, and the state at `leads[s]`:
    `seen` [slots, V], `parameters` (float32 [slots, 4]: CFG weight, temperature, min_p, repetition penalty), `seeds`,
    `steps`, `done`, `tokens`, `lengths` [slots]. `seen` and `done` are bool or uint8. The last slot is scratch.

    In order: CFG c + w (c - u), penalty on what was seen, temperature, min_p, Gumbel noise, largest score, of equals
    the lowest id. Temperature 0 takes the largest score without noise. With `processed`, `logits` [S, V] are final
    scores by line, with -inf for what was filtered out, and only noise is added.

    A line emits -2 where its slot is scratch or done; -1, and is done, where a logit is not finite (with `processed`:
    is NaN or inf, or all are -inf). `stop` sets done. Noise is Philox4x32-10 (Random123) of the seed and the step.
    """
    slots, vocabulary = seen.shape
    assert parameters.shape == (slots, 4)
    assert all(state.is_contiguous() for state in (seen, parameters))
    columns = -(-vocabulary // 4)
    _sample[emitted.shape](
        logits, cond, uncond, leads, seen.view(torch.uint8), parameters, seeds, steps, done.view(torch.uint8), tokens,
        lengths, emitted, logits.stride(0), slots - 1, vocabulary, columns, stop, processed,
        triton.next_power_of_2(columns), num_warps=16,
    )  # fmt: skip


@triton.jit
def _sample(
    logits, cond, uncond, leads, seen, parameters, seeds, steps, done, tokens, lengths, emitted,
    stride, scratch, vocabulary, columns, stop, processed: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    row = tl.load(cond + line)
    lead = tl.load(leads + line)
    if (lead == scratch) | (tl.load(done + lead) != 0):
        tl.store(emitted + line, -2)
        return
    c = logits + (line if processed else row) * stride
    u = c if processed else logits + tl.load(uncond + line) * stride
    seen += lead * vocabulary
    parameters += lead * 4
    temperature = tl.load(parameters + 1)
    v0 = tl.arange(0, block)  # a column: its four Philox words serve ids `columns` apart
    v1, v2, v3 = v0 + columns, v0 + 2 * columns, v0 + 3 * columns
    s0 = _score(c, u, seen, parameters, v0, tl.minimum(columns, vocabulary), processed)
    s1 = _score(c, u, seen, parameters, v1, tl.minimum(2 * columns, vocabulary), processed)
    s2 = _score(c, u, seen, parameters, v2, tl.minimum(3 * columns, vocabulary), processed)
    s3 = _score(c, u, seen, parameters, v3, vocabulary, processed)
    top = tl.max(tl.maximum(tl.maximum(s0, s1), tl.maximum(s2, s3)), 0)
    sound = (s0 < _INF) & (s1 < _INF) & (s2 < _INF) & (s3 < _INF)  # false for NaN, which a maximum would pass over
    if (tl.min(sound.to(tl.int32), 0) == 0) | (top == -_INF):
        tl.store(emitted + line, -1)
        tl.store(done + lead, 1)
        return
    least = -_INF if processed else top + tl.log(tl.load(parameters + 2))  # min_p 0 gives -inf
    step = tl.load(steps + lead)
    w0, w1, w2, w3 = tl.philox(tl.load(seeds + lead), v0, v0 * 0 + step.to(tl.int32), v0 * 0, v0 * 0)
    s0 = _noisy(s0, w0, least, temperature)
    s1 = _noisy(s1, w1, least, temperature)
    s2 = _noisy(s2, w2, least, temperature)
    s3 = _noisy(s3, w3, least, temperature)
    best = tl.max(tl.maximum(tl.maximum(s0, s1), tl.maximum(s2, s3)), 0)
    v0, v1 = tl.where(s0 == best, v0, vocabulary), tl.where(s1 == best, v1, vocabulary)
    v2, v3 = tl.where(s2 == best, v2, vocabulary), tl.where(s3 == best, v3, vocabulary)
    token = tl.min(tl.minimum(tl.minimum(v0, v1), tl.minimum(v2, v3)), 0)
    tl.store(emitted + line, token)
    tl.store(tokens + lead, token)
    tl.store(seen + token, 1)
    tl.store(steps + lead, step + 1)
    tl.store(lengths + lead, tl.load(lengths + lead) + 1)
    tl.store(done + lead, (token == stop).to(tl.uint8))


@triton.jit
def _score(c, u, seen, parameters, ids, end, processed: tl.constexpr):
    """The score before noise: NaN or inf where the logit is at fault, -inf from `end` on."""
    valid = ids < end
    score = tl.load(c + ids, mask=valid, other=0.0)
    if not processed:
        guidance, temperature = tl.load(parameters), tl.load(parameters + 1)
        penalty = tl.where(tl.load(seen + ids, mask=valid, other=0) != 0, tl.load(parameters + 3), 1.0)
        score += guidance * (score - tl.load(u + ids, mask=valid, other=0.0))
        score = tl.where(score < 0, score * penalty, score / penalty)
        score = score / tl.where(temperature > 0, temperature, 1.0)
        score = tl.where(score > -_INF, score, _INF)
    return tl.where(valid, score, -_INF)


@triton.jit
def _noisy(score, word, least, temperature):
    """A score of at least `least` with Gumbel noise of the random `word`; -inf for a lower one."""
    uniform = ((word >> 9).to(tl.float32) + 0.5) * _2_TO_MINUS_23  # as in noise.py
    noise = tl.where(temperature > 0, -tl.log(-tl.log(uniform)), 0.0)
    return tl.where(score >= least, score + noise, -_INF)
