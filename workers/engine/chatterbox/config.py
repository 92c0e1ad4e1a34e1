"""What the members of the model's family differ in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Processor = Literal["cfg", "repetition_penalty", "temperature", "min_p", "top_k", "top_p"]
"""One stage between the logits and the distribution that a token is drawn from."""

HEAD_DIM = 64
"""Width of an attention head, the same in the whole family."""


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """Rotary positions with Llama 3's stretching of the low frequencies."""

    theta: float = 500_000.0
    factor: float = 8.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192


@dataclass(frozen=True, slots=True)
class T3Config:
    """One token transformer: its sizes, its special tokens and the order of its sampling.

    The sizes are read from the checkpoint's tensors, so a pruned checkpoint needs no configuration of its own.
    `processors` is the order in which logits are worked on; parameters of stages that are not in it do nothing.
    """

    layers: int
    dim: int
    heads: int
    ffn_dim: int
    text_vocabulary: int
    speech_vocabulary: int
    text_positions: int
    speech_positions: int
    prompt_queries: int
    speaker_dim: int
    head_dim: int = HEAD_DIM
    norm_eps: float = 1e-5
    rope: RopeScaling = RopeScaling()
    perceiver_heads: int = 4
    longest_prompt: int = 150
    start_text: int = 255
    stop_text: int = 0
    start_speech: int = 6561
    stop_speech: int = 6562
    most_tokens: int = 1000
    processors: tuple[Processor, ...] = ("cfg", "repetition_penalty", "temperature", "min_p", "top_p")

    @property
    def prefix_rows(self) -> int:
        """Positions before the text: the speaker, the perceiver's queries and the emotion."""
        return 1 + self.prompt_queries + 1

    @property
    def longest_text(self) -> int:
        """Text tokens that have positions, the start and stop tokens not counted."""
        return self.text_positions - 2

    def prompt_positions(self, text_tokens: int) -> int:
        """Positions of everything before the first decode step, whose input is the second start-of-speech."""
        return self.prefix_rows + text_tokens + 2 + 1
