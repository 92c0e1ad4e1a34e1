"""Tokens to mel frames: against upstream as installed on the same random weights, and alone against in company."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.workers.engine.chatterbox.checkpoints import open_sound
from tests.workers.engine.chatterbox.sound_oracle import UpstreamSound
from workers.engine.base import Quality
from workers.engine.chatterbox.conditionals import DevicePrompt, VoiceConditionals
from workers.engine.chatterbox.estimator import MEL, Estimator
from workers.engine.chatterbox.s3gen import EulerBatch, FlowInput, S3Gen, steps_of

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS: dict[Quality, int] = {"draft": 5, "standard": 10, "high": 20}


def tokens(count: int, seed: int = 0) -> list[int]:
    found: list[int] = torch.randint(0, 6561, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return found


def prompt(voice: VoiceConditionals, length: int = 20) -> DevicePrompt:
    short = voice.gen.shortened(length)
    return DevicePrompt(short.tokens, short.mel, short.embedding)


def flow(voice: VoiceConditionals, count: int, *, seed: int = 5, length: int = 20, last: bool = True) -> FlowInput:
    return FlowInput(prompt(voice, length), tokens(count, seed), 0, last=last, seed=seed)


def assert_close(ours: Tensor, other: Tensor, atol: float) -> None:
    torch.testing.assert_close(ours, other, rtol=0, atol=atol)


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean())


@pytest.mark.parametrize(
    ("count", "length", "quality"),
    [
        (1, 20, "standard"),
        (7, 20, "draft"),
        (7, 20, "standard"),
        (7, 20, "high"),
        (60, 20, "standard"),
        (60, 1, "draft"),
        (7, 250, "draft"),
    ],
)
def test_mel_is_upstreams(
    s3gen: S3Gen, upstream_sound: UpstreamSound, voice: VoiceConditionals, *, count: int, length: int, quality: Quality
) -> None:
    """From the same noise, mel frames are within 1e-4 of upstream's, for texts, prompts and steps of all numbers."""
    one = flow(voice, count, length=length)
    noise = s3gen.noise(one)
    [ours] = s3gen.mel([one], quality)
    assert ours.shape == (2 * count, MEL)
    assert_close(ours, upstream_sound.mel(one, noise, STEPS[quality]), 1e-4)
    assert difference(ours, noise[2 * length :]) > 0.1


def test_rows_of_one_length_are_alone(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """A batch gives each row what it would have by itself."""
    inputs = [flow(voice, 13, seed=seed) for seed in range(3)]
    together = s3gen.mel(inputs, "draft")
    for one, mel in zip(inputs, together, strict=True):
        assert_close(mel, s3gen.mel([one], "draft")[0], 1e-4)
    assert difference(together[0], together[1]) > 0.1


def test_ragged_rows_are_alone(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """So does a batch of different texts, prompts and ends, in which the padding of one meets the sound of another."""
    inputs = [
        flow(voice, 1),
        flow(voice, 40, length=25),
        flow(voice, 7, seed=6, last=False),
        flow(voice, 18, seed=7, length=3),
    ]
    for one, mel in zip(inputs, s3gen.mel(inputs, "draft"), strict=True):
        assert_close(mel, s3gen.mel([one], "draft")[0], 1e-4)


class Batch:
    """An `EulerBatch` and how its rows would have come out alone."""

    def __init__(self, s3gen: S3Gen, inputs: list[FlowInput], capacity: int, *, ragged: bool = True) -> None:
        self.batch: Any = EulerBatch(s3gen, max(one.frames for one in inputs), capacity, ragged=ragged)
        self._s3gen = s3gen
        self._fixed = s3gen.encode(inputs)
        self._inputs = inputs

    def place(self, number: int, quality: Quality) -> int:
        row: int = self.batch.place(self._fixed[number], self._s3gen.noise(self._inputs[number]), quality)
        return row

    def take(self, row: int, number: int) -> Tensor:
        one = self._inputs[number]
        found: Tensor = self.batch.take(row, one.frames)
        return found[2 * len(one.prompt.tokens) :]

    def pad_steps(self, size: int) -> None:
        """Let every step of `size` rows or fewer run with `size`, as graphs do, but without a graph."""
        where = torch.full((size,), self.batch.capacity, dtype=torch.int64)
        self.batch._graphs[size] = (partial(self.batch._advance, where), where)

    def poison(self, rows: list[int]) -> None:
        self.batch._x[rows] = torch.nan
        self.batch._fixed[rows] = torch.nan


def test_rows_join_at_different_steps(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Rows of different lengths and qualities that come and go between steps are what they are alone."""
    inputs = [flow(voice, 10), flow(voice, 30, seed=6), flow(voice, 4, seed=7), flow(voice, 21, seed=8)]
    arriving: dict[int, tuple[int, Quality]] = {0: (0, "standard"), 3: (1, "draft"), 4: (2, "high"), 9: (3, "standard")}
    group = Batch(s3gen, inputs, capacity=4)
    rows: dict[int, tuple[int, int]] = {}
    done: dict[int, Tensor] = {}
    for step in range(24):
        if step in arriving:
            number, quality = arriving[step]
            rows[number] = group.place(number, quality), STEPS[quality]
        group.batch.step([row for row, _ in rows.values()])
        rows = {number: (row, left - 1) for number, (row, left) in rows.items()}
        for number in [number for number, (_, left) in rows.items() if left == 0]:
            done[number] = group.take(rows.pop(number)[0], number)
    assert group.batch.empty
    for number, quality in arriving.values():
        assert_close(done[number], s3gen.mel([inputs[number]], quality)[0], 1e-4)


@pytest.mark.parametrize("ragged", [True, False])
def test_free_rows_and_padding_may_hold_anything(s3gen: S3Gen, voice: VoiceConditionals, *, ragged: bool) -> None:
    """NaN in free rows and in the one that pads steps reaches nobody, nor whoever gets such a row next."""
    inputs = [flow(voice, 9), flow(voice, 6 if ragged else 9, seed=6)]
    group = Batch(s3gen, inputs, capacity=3, ragged=ragged)
    group.pad_steps(4)
    first = group.place(0, "draft")
    group.poison([row for row in range(4) if row != first])
    group.batch.step([first])
    second = group.place(1, "draft")
    for _ in range(4):
        group.batch.step([first, second])
    found = group.take(first, 0)
    group.poison([first])
    group.batch.step([second])
    assert group.batch.replays == 6
    assert_close(found, s3gen.mel([inputs[0]], "draft")[0], 1e-4)
    assert_close(group.take(second, 1), s3gen.mel([inputs[1]], "draft")[0], 1e-4)


def test_a_finished_row_stands_still(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Steps beyond a row's last one leave it as it is."""
    one = flow(voice, 5)
    group = Batch(s3gen, [one], capacity=1)
    row = group.place(0, "high")
    for _ in range(STEPS["high"] + 3):
        group.batch.step([row])
    assert_close(group.take(row, 0), s3gen.mel([one], "high")[0], 1e-6)


def test_rows_are_given_back(s3gen: S3Gen) -> None:
    """Taking and dropping free a row once, however often it is dropped."""
    batch = EulerBatch(s3gen, 8, 2, ragged=False)
    rows = [batch.place(torch.zeros(8, 240), torch.zeros(8, MEL), "draft") for _ in range(2)]
    assert (batch.free, batch.empty, sorted(rows)) == (0, False, [0, 1])
    batch.take(rows[0], 8)
    batch.drop(rows[1])
    batch.drop(rows[1])
    assert (batch.free, batch.empty) == (2, True)


def test_noise_is_of_the_seed_and_the_frame(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """A frame's noise is the same in whichever part of its stream it is computed, and differs between seeds."""
    whole = s3gen.noise(FlowInput(prompt(voice), tokens(50), 0, last=True, seed=5))[40:]
    later = s3gen.noise(FlowInput(prompt(voice, 8), tokens(50)[17:43], 17, last=False, seed=5))[16:]
    assert len(later) == 2 * (43 - 17 - 3)
    assert torch.equal(later, whole[34 : 34 + len(later)])
    other = s3gen.noise(FlowInput(prompt(voice), tokens(50), 0, last=True, seed=6))[40:]
    assert difference(whole, other) > 0.5
    assert len(set(whole.flatten().tolist())) > 0.99 * whole.numel()


def test_prompt_noise_is_the_same_before_every_part(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Counted from the prompt's end, wherever the part behind it begins, and unlike the noise of any other frame."""
    first = s3gen.noise(FlowInput(prompt(voice), tokens(5), 0, last=True, seed=5))
    later = s3gen.noise(FlowInput(prompt(voice), tokens(9), 31, last=True, seed=5))
    shorter = s3gen.noise(FlowInput(prompt(voice, 8), tokens(9), 31, last=True, seed=5))
    assert torch.equal(first[:40], later[:40])
    assert torch.equal(first[24:40], shorter[:16])
    assert not torch.equal(first[40:], later[40:50])
    assert torch.cdist(first[:40], first[40:]).min() > 1


def test_noise_is_standard_normal(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Its mean is 0, its deviation 1, and neighbouring frames have nothing to do with each other."""
    noise = s3gen.noise(FlowInput(prompt(voice), tokens(300), 0, last=True, seed=1))
    assert abs(noise.mean()) < 0.02
    assert abs(noise.std() - 1) < 0.02
    assert abs((noise[1:] * noise[:-1]).mean()) < 0.02


def test_the_newest_tokens_are_only_looked_at(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """While a stream goes on, its last three tokens give no frames, but what they are is heard in those before."""
    unfinished, finished = flow(voice, 12, last=False), flow(voice, 12)
    assert unfinished.frames == finished.frames - 6
    [fixed], [whole] = s3gen.encode([unfinished]), s3gen.encode([finished])
    assert torch.equal(fixed, whole[:-6])
    [mel] = s3gen.mel([unfinished], "draft")
    assert mel.shape == (2 * (12 - 3), MEL)
    spoken = unfinished.tokens
    [other] = s3gen.encode([FlowInput(unfinished.prompt, [*spoken[:-1], 1], 0, last=False, seed=5)])
    assert difference(fixed[-2:], other[-2:]) > 1e-2


@pytest.mark.parametrize("quality", STEPS)
def test_quality_is_the_number_of_steps(
    s3gen: S3Gen, voice: VoiceConditionals, monkeypatch: pytest.MonkeyPatch, quality: Quality
) -> None:
    """A draft runs half the standard ten Euler steps and the highest quality twice as many."""
    asked: list[int] = []
    compute: Callable[..., Tensor] = Estimator.__call__

    def count(estimator: Estimator, x: Tensor, time: Tensor, lengths: Tensor | None) -> Tensor:
        asked.append(len(x))
        return compute(estimator, x, time, lengths)

    monkeypatch.setattr(Estimator, "__call__", count)
    s3gen.mel([flow(voice, 3)], quality)
    assert asked == [2] * STEPS[quality]


def test_qualities_sound_different(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """The more steps, the nearer to the solution: a draft is farther from the highest quality than the standard is."""
    draft, standard, high = (s3gen.mel([flow(voice, 20)], quality)[0] for quality in STEPS)
    assert difference(draft, high) > 1.5 * difference(standard, high)
    assert difference(standard, high) > 1e-3


def test_half_of_an_odd_number_of_steps() -> None:
    """Is rounded up, so that a draft has at least one."""
    assert [steps_of("draft", count) for count in (1, 2, 5, 10)] == [1, 1, 3, 5]
    assert [steps_of("standard", 5), steps_of("high", 5)] == [5, 10]


def test_bf16_is_near(s3gen: S3Gen, tiny_checkpoint: Path, voice: VoiceConditionals) -> None:
    """An estimator in bf16 gives mel frames that differ by less than 0.05 in the mean, in ragged batches too."""
    rounded = open_sound(tiny_checkpoint, steps=10, dtype=torch.bfloat16)
    inputs = [flow(voice, 60), flow(voice, 11, seed=6)]
    for exact, near in zip(s3gen.mel(inputs), rounded.mel(inputs), strict=True):
        assert near.dtype is torch.float32
        assert 0 < difference(exact, near) < 0.05
