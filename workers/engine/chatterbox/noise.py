"""Noise that depends on a seed, a step and a place alone: Philox, a counter-based generator.

Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011): Philox4x32 with 10 rounds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Four 32-bit words per counter and key; all are int64 tensors of values below 2**32, broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # A product of two 32-bit numbers wraps in int64, but its bits are those of the unsigned product.
        first, second = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (second >> 32 & _MASK) ^ c1 ^ k0,
            second & _MASK,
            (first >> 32 & _MASK) ^ c3 ^ k1,
            first & _MASK,
        )
        k0, k1 = (k0 + _KEY_STEPS[0]) & _MASK, (k1 + _KEY_STEPS[1]) & _MASK
    return c0, c1, c2, c3


def uniform(seeds: Tensor, steps: Tensor, size: int, *, stream: int = 0) -> Tensor:
    """Float32 [S, size] strictly between 0 and 1, from int64 seeds and steps of shape [S].

    Element v takes word v // q of the counter (v % q, step, stream, 0), where q = ceil(size / 4). 23 bits of it are
    used: with 24 the largest value would round to 1. Streams of one seed are independent of each other.
    """
    quarter = -(-size // 4)
    columns = torch.arange(quarter, device=seeds.device)[None, :]
    zero = torch.zeros_like(columns)
    step = steps[:, None] & _MASK
    key = ((seeds & _MASK)[:, None], (seeds >> 32 & _MASK)[:, None])
    words = philox((columns, step, zero + stream, zero), key)
    joined = torch.cat([word.expand(len(seeds), quarter) for word in words], dim=1)[:, :size]
    return _unit(joined)


def _unit(words: Tensor) -> Tensor:
    return ((words >> 9).float() + 0.5) * 2.0**-23


def normal(seeds: Tensor, frames: Tensor, size: int, *, stream: int) -> Tensor:
    """Standard normal noise, float32 [N, F, size], from int64 seeds [N] and frames [N, F]; `size` a multiple of four.

    What a frame gets depends on its number, which may be negative, and on nothing else. Elements 4 j to 4 j + 3 come of
    the counter (j, frame, stream, 0) by Box and Muller's transform.
    """
    columns = torch.arange(size // 4, device=seeds.device)[None, None, :]
    zero = torch.zeros_like(columns)
    key = ((seeds & _MASK)[:, None, None], (seeds >> 32 & _MASK)[:, None, None])
    first, second, third, fourth = philox((columns, (frames & _MASK)[..., None], zero + stream, zero), key)
    radii = torch.sqrt(-2 * torch.log(_unit(torch.stack([first, third], dim=-1))))
    angles = (2 * math.pi) * _unit(torch.stack([second, fourth], dim=-1))
    pairs = torch.stack([radii * torch.cos(angles), radii * torch.sin(angles)], dim=-1)
    return pairs.flatten(-3)


def gumbel(seeds: Tensor, steps: Tensor, size: int) -> Tensor:
    """Standard Gumbel noise, float32 [S, size]: the argmax of logits plus this noise is a draw from their softmax."""
    return -torch.log(-torch.log(uniform(seeds, steps, size)))
