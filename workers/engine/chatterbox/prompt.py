"""What stands before the first step: a speaker, an emotion and a text, made into the transformer's input."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fleet.errors import InvalidValue
from workers.engine.base import Conditionals
from workers.engine.chatterbox.config import T3Config
from workers.engine.chatterbox.transfer import upload
from workers.engine.chatterbox.weights import TensorFile

_CACHED_SPEAKERS = 256
"""Perceiver results kept, 132 KiB each for the full model."""


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerPrompt(Conditionals):
    """T3's part of a voice: `speaker` float32 [speaker_dim] and `tokens`, the speech tokens of its recording.

    `digest` identifies the contents.
    """

    speaker: Tensor
    tokens: tuple[int, ...]
    digest: str

    @classmethod
    def checked(cls, speaker: object, tokens: object, config: T3Config) -> SpeakerPrompt:
        """From tensors of any shape that holds one speaker and one row of tokens, as upstream's conditionals do.

        Raises `InvalidValue`, naming what is wrong, before anything reaches the device.
        """
        if not isinstance(speaker, Tensor) or speaker.numel() != config.speaker_dim or not speaker.is_floating_point():
            expected = f"the speaker embedding must be {config.speaker_dim} numbers"
            raise InvalidValue(f"{expected}, not {_described(speaker)}", param="speaker")
        row = speaker.detach().reshape(-1).to("cpu", torch.float32)
        if not torch.isfinite(row).all():
            raise InvalidValue("the speaker embedding holds values that are not finite", param="speaker")
        if (
            not isinstance(tokens, Tensor)
            or tokens.is_floating_point()
            or tokens.is_complex()
            or not 1 <= tokens.numel() <= config.longest_prompt
            or tokens.ndim == 0
            or tokens.numel() != tokens.shape[-1]
        ):
            raise InvalidValue(
                f"the prompt must be one row of 1 to {config.longest_prompt} tokens, not {_described(tokens)}",
                param="prompt_tokens",
            )
        ids = [int(token) for token in tokens.flatten().tolist()]
        if not all(0 <= token < config.speech_vocabulary for token in ids):
            raise InvalidValue(f"prompt tokens must be 0 to {config.speech_vocabulary - 1}", param="prompt_tokens")
        digest = hashlib.sha256(row.numpy().tobytes() + repr(ids).encode()).hexdigest()
        return cls(row, tuple(ids), digest)


def _described(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


class PromptEncoder:
    """Upstream's embeddings, speaker projection and perceiver. In float32: this runs once per request.

    Raises `ModelInvalid` when the checkpoint lacks a part.
    """

    def __init__(self, file: TensorFile, config: T3Config, device: torch.device) -> None:
        dim = config.dim

        def load(name: str, *shape: int) -> Tensor:
            return file.floats(name, *shape).to(device)

        self._config = config
        self._device = device
        self._text = load("text_emb.weight", config.text_vocabulary, dim)
        self._text_positions = load("text_pos_emb.emb.weight", config.text_positions, dim)
        self._speech = load("speech_emb.weight", config.speech_vocabulary, dim)
        self._speech_positions = load("speech_pos_emb.emb.weight", config.speech_positions, dim)
        self._speaker = load("cond_enc.spkr_enc.weight", dim, config.speaker_dim)
        self._speaker_bias = load("cond_enc.spkr_enc.bias", dim)
        self._emotion = load("cond_enc.emotion_adv_fc.weight", dim, 1)[:, 0]
        self._queries = load("cond_enc.perceiver.pre_attention_query", 1, config.prompt_queries, dim)[0]
        attention = "cond_enc.perceiver.attn"
        self._norm = load(f"{attention}.norm.weight", dim), load(f"{attention}.norm.bias", dim)
        self._projections = {
            name: (load(f"{attention}.{name}.weight", dim, dim), load(f"{attention}.{name}.bias", dim))
            for name in ("to_q", "to_k", "to_v", "proj_out")
        }
        self._speakers: OrderedDict[str, Tensor] = OrderedDict()

    def speech(self, tokens: Tensor, steps: Tensor) -> Tensor:
        """Embeddings float32 [N, dim] of speech tokens at speech positions `steps`; both int64 [N]."""
        return self._speech[tokens] + self._speech_positions[steps]

    def encode(self, text_tokens: list[int], voice: SpeakerPrompt, exaggeration: float, rows: int) -> Tensor:
        """The prompt of one sequence, float32 [rows, positions, dim]: all inputs before the second start-of-speech.

        Positions are the speaker, the perceiver's queries, the emotion, the text between its start and stop tokens,
        and one start-of-speech at speech position 0; upstream feeds a second one at the same position, which is here
        the input of the first decode step. Row 0 is conditional; row 1, if asked for, is not: its text embeddings are
        zero before their positions are added.
        """
        config = self._config
        ids = upload(torch.tensor([config.start_text, *text_tokens, config.stop_text]), self._device)
        positions = self._text_positions[: len(ids)]
        prefix = torch.cat([self._speaker_prefix(voice), exaggeration * self._emotion[None]])
        begin = (self._speech[config.start_speech] + self._speech_positions[0])[None]
        texts = [self._text[ids] + positions, positions]
        return torch.stack([torch.cat([prefix, text, begin]) for text in texts[:rows]])

    def drop_caches(self) -> None:
        self._speakers.clear()

    def _speaker_prefix(self, voice: SpeakerPrompt) -> Tensor:
        """float32 [1 + queries, dim]: what a voice contributes whatever the text and the emotion."""
        if (known := self._speakers.get(voice.digest)) is not None:
            self._speakers.move_to_end(voice.digest)
            return known
        speaker = F.linear(upload(voice.speaker, self._device), self._speaker, self._speaker_bias)
        tokens = upload(torch.tensor(voice.tokens), self._device)
        prompt = self.speech(tokens, torch.arange(len(tokens), device=self._device))
        attended = self._perceive(self._queries, prompt)
        prefix = torch.cat([speaker[None], self._perceive(attended, attended)])
        self._speakers[voice.digest] = prefix
        if len(self._speakers) > _CACHED_SPEAKERS:
            self._speakers.popitem(last=False)
        return prefix

    def _perceive(self, queries: Tensor, context: Tensor) -> Tensor:
        """The perceiver's one attention block: queries [q, dim] look at context [n, dim]; both are normalised alike."""

        def project(name: str, x: Tensor) -> Tensor:
            projected = F.linear(x, *self._projections[name])
            return projected.view(len(x), self._config.perceiver_heads, -1).transpose(0, 1)

        dim = (self._config.dim,)
        inner, outer = F.layer_norm(queries, dim, *self._norm), F.layer_norm(context, dim, *self._norm)
        attended = F.scaled_dot_product_attention(
            project("to_q", inner)[None], project("to_k", outer)[None], project("to_v", outer)[None]
        )[0]
        return queries + F.linear(attended.transpose(0, 1).flatten(1), *self._projections["proj_out"])
