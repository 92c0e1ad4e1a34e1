"""Upstream's S3Gen as installed, with its random draws replaced by ours."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from chatterbox.models.s3gen import hifigan
from safetensors.torch import load_file
from torch import Tensor

from workers.engine.chatterbox.s3gen import FlowInput


class UpstreamSound:
    def __init__(self, s3gen: Any, directory: Path) -> None:
        s3gen.load_state_dict(load_file(directory / "s3gen.safetensors"), strict=False)
        self.s3gen = s3gen.eval()

    def mel(self, one: FlowInput, noise: Tensor, steps: int) -> Tensor:
        """Upstream's own flow from this noise [frames, 80] to the mel frames behind the prompt [n, 80]."""
        reference = {
            "prompt_token": one.prompt.tokens[None],
            "prompt_token_len": torch.tensor([len(one.prompt.tokens)]),
            "prompt_feat": one.prompt.mel[None],
            "prompt_feat_len": None,
            "embedding": one.prompt.embedding[None],
        }
        with patch("torch.randn_like", _drawing(noise.T[None])):
            found: Tensor = self.s3gen.flow_inference(
                torch.tensor([one.tokens]), ref_dict=reference, n_cfm_timesteps=steps, finalize=True
            )
        return found[0].T

    def sound(self, mel: Tensor, phases: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Upstream's sound and source signal [samples] of mel frames [n, 80].

        `phases` [9] of the harmonics are in turns, `noise` is [samples, 9].
        """

        class Uniform:
            def __init__(self, low: float, high: float) -> None:
                assert (low, high) == (-math.pi, math.pi)

            def sample(self, sample_shape: tuple[int, ...]) -> Tensor:
                return 2 * math.pi * phases.reshape(sample_shape)

        unused = torch.zeros(1, len(noise), 1)  # a second source, which upstream draws and drops
        drawing = _drawing(noise.T[None], unused)
        with patch.object(hifigan, "Uniform", Uniform), patch("torch.randn_like", drawing):
            sound, source = self.s3gen.hift_inference(mel.T[None])
        return sound[0], source[0, 0]

    @torch.inference_mode()
    def f0(self, mel: Tensor) -> Tensor:
        found: Tensor = self.s3gen.mel2wav.f0_predictor(mel.T[None])
        return found[0]


def _drawing(*prepared: Tensor) -> Callable[[Tensor], Tensor]:
    """Stands in for torch.randn_like: gives what was prepared for a shape, and fails for any other."""
    by_shape = {one.shape: one for one in prepared}
    return lambda like: by_shape[like.shape].clone()
