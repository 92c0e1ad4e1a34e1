"""Upstream's T3 as installed, its own loop running, with its random draws replaced and its numbers recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from chatterbox.models.t3.modules.cond_enc import T3Cond
from safetensors.torch import load_file
from torch import Tensor

Choose = Callable[[int, Tensor], int]
"""The step and the filtered probabilities [vocabulary] to the token that is drawn."""


@dataclass
class Recording:
    """What upstream computed: per step both rows' logits [2, vocabulary] and the filtered probabilities."""

    logits: list[Tensor] = field(default_factory=list)
    probabilities: list[Tensor] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


class Upstream:
    def __init__(self, t3: Any, directory: Path) -> None:
        t3.load_state_dict(load_file(directory / "t3_cfg.safetensors"))
        self.t3 = t3.eval()
        self._conditionals = torch.load(directory / "conds.pt", weights_only=True)["t3"]

    def conditionals(self, exaggeration: float) -> T3Cond:
        return T3Cond(
            speaker_emb=self._conditionals["speaker_emb"],
            cond_prompt_speech_tokens=self._conditionals["cond_prompt_speech_tokens"],
            emotion_adv=exaggeration * torch.ones(1, 1, 1),
        )

    def text(self, ids: list[int]) -> Tensor:
        """As upstream's `generate` builds it: both rows, with start and stop."""
        whole = [self.t3.hp.start_text_token, *ids, self.t3.hp.stop_text_token]
        return torch.tensor([whole, whole])

    def prompt(self, ids: list[int], exaggeration: float) -> Tensor:
        """Embeddings of both rows up to the first start-of-speech, [2, positions, dim]."""
        with torch.inference_mode():
            embeddings, _ = self.t3.prepare_input_embeds(
                t3_cond=self.conditionals(exaggeration),
                text_tokens=self.text(ids),
                speech_tokens=torch.full((2, 1), self.t3.hp.start_speech_token),
                cfg_weight=0.5,
            )
        found: Tensor = embeddings
        return found

    def run(
        self, ids: list[int], choose: Choose, *, steps: int, exaggeration: float = 0.5, **parameters: float
    ) -> Recording:
        """Upstream's own `inference`, with `choose` in place of its multinomial draw."""
        recording = Recording()

        def draw(probabilities: Tensor, num_samples: int) -> Tensor:
            assert num_samples == 1
            recording.probabilities.append(probabilities[0].clone())
            token = choose(len(recording.tokens), probabilities[0])
            recording.tokens.append(token)
            return torch.tensor([[token]])

        def record(_module: object, _inputs: object, output: Tensor) -> None:
            recording.logits.append(output[:, -1].clone())

        hook = self.t3.speech_head.register_forward_hook(record)
        try:
            with patch("torch.multinomial", draw):
                self.t3.inference(
                    t3_cond=self.conditionals(exaggeration),
                    text_tokens=self.text(ids),
                    max_new_tokens=steps,
                    **{"top_p": 1.0, **parameters},
                )
        finally:
            hook.remove()
        return recording
