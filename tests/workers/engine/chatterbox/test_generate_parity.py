"""A whole generation, from text and recording to waveform, beside upstream's own `generate` on the same weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
import torch
from chatterbox.tts import ChatterboxTTS as Upstream
from torch import Tensor

from workers.engine.chatterbox.noise import gumbel, normal, uniform
from workers.engine.chatterbox.options import EngineOptions, SpeechOptions
from workers.engine.chatterbox.tts import ChatterboxTTS

TOKENS = 50
TEXTS = (
    "Hello there, world.",
    "Would you please read this sentence again, slowly and clearly?",
    "It's raining outside; don't forget your umbrella...",
    "nothing travels faster than light - except perhaps bad news",
    "Ten, twenty: thirty!",
)
VOICES = (None, 120.0, 210.0)
"""The model's own, and recordings of these pitches in Hz."""


@pytest.fixture(scope="module")
def ours(tiny_checkpoint: Path) -> Iterator[ChatterboxTTS]:
    """In float32, without the watermark."""
    tokens = EngineOptions(precision="fp32", max_rows=16)
    speech = SpeechOptions(max_tokens=TOKENS, watermark=False)
    with ChatterboxTTS.from_local(tiny_checkpoint, "cpu", tokens=tokens, speech=speech) as opened:
        yield opened


@pytest.fixture(scope="module")
def theirs(make_checkpoint: ModuleType, tiny_checkpoint: Path) -> Any:
    """Upstream's class on the same files; its watermark leaves the sound as it is."""
    with (
        patch("chatterbox.tts.T3", lambda: make_checkpoint.upstream_t3("tiny")),
        patch("chatterbox.tts.S3Gen", lambda: make_checkpoint.upstream_s3gen("tiny")),
    ):
        model: Any = Upstream.from_local(tiny_checkpoint, "cpu")
    model.watermarker = type("Unmarked", (), {"apply_watermark": staticmethod(lambda wav, sample_rate: wav)})()  # noqa: ARG005 - its name
    inference = model.t3.inference
    model.t3.inference = lambda **asked: inference(**{**asked, "max_new_tokens": TOKENS})
    return model


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """Three seconds each of a gliding voice, a whole number of tokens long."""
    directory = tmp_path_factory.mktemp("voices")
    found = {}
    for pitch in (voice for voice in VOICES if voice is not None):
        times = np.arange(72_000) / 24_000
        phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * times))) / 24_000
        sound = sum(np.sin(n * phase) / n for n in range(1, 12))
        noise = np.random.default_rng(round(pitch)).standard_normal(len(times))
        found[pitch] = directory / f"{pitch:g}.wav"
        soundfile.write(found[pitch], 0.1 * sound + 0.003 * noise, 24_000, subtype="FLOAT")
    return found


class Noise:
    """Our draws in place of torch's, wherever upstream's `generate` draws."""

    def __init__(self, seed: int) -> None:
        self._seeds = torch.tensor([seed])
        self._step = 0

    def multinomial(self, probabilities: Tensor, num_samples: int) -> Tensor:
        """The argmax of log-probabilities and Gumbel noise is a draw."""
        assert num_samples == 1
        step = torch.tensor([self._step])
        self._step += 1
        return (probabilities.log() + gumbel(self._seeds, step, probabilities.shape[1])).argmax(dim=1, keepdim=True)

    def randn_like(self, x: Tensor) -> Tensor:
        """[1, 80, T] begins the solver, [1, 9, S] is the source's; the other one, [1, S, 1], is never used."""
        if x.shape[1] == 80:
            frames = torch.arange(x.shape[2]) - self.prompt_frames
            return normal(self._seeds, frames[None], 80, stream=1).transpose(1, 2)
        if x.shape[1] == 9:
            drawn = normal(self._seeds, torch.arange(x.shape[2] // 480)[None], 480 * 9, stream=3)
            return drawn.view(1, -1, 9).transpose(1, 2)
        return torch.zeros_like(x)

    prompt_frames = 0

    def uniform(self, **_: float) -> Any:
        turns = uniform(self._seeds, torch.zeros(1, dtype=torch.int64), 8, stream=2) - 0.5
        phases = 2 * math.pi * torch.cat([torch.zeros(1, 1), turns], dim=1)[..., None]
        return type("Phases", (), {"sample": staticmethod(lambda sample_shape: phases.clone())})()  # noqa: ARG005 - its name


@pytest.mark.parametrize("voice", VOICES, ids=("own", "low", "high"))
def test_waveform_equals_upstreams(
    ours: ChatterboxTTS, theirs: Any, recordings: dict[float, Path], voice: float | None
) -> None:
    """Every text within 1e-3 of upstream's sound before the watermark, and as long, for this voice."""
    conditionals = ours.engine.default_voice if voice is None else ours.clone_voice(recordings[voice])
    if voice is not None:
        theirs.prepare_conditionals(str(recordings[voice]))
    for seed, text in enumerate(TEXTS):
        noise = Noise(seed)
        noise.prompt_frames = theirs.conds.gen["prompt_feat"].shape[1]
        with (
            patch("torch.multinomial", noise.multinomial),
            patch("torch.randn_like", noise.randn_like),
            patch("chatterbox.models.s3gen.hifigan.Uniform", noise.uniform),
        ):
            expected = theirs.generate(text)
        found = ours.generate(text, seed=seed, conditionals=conditionals)
        assert found.shape == expected.shape
        assert expected.abs().max() > 0.05
        assert (found - expected).abs().max() < 1e-3
