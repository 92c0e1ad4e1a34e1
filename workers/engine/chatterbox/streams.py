"""Streams of speech tokens on their way to sound."""

from __future__ import annotations

from dataclasses import dataclass, field

from workers.engine.base import Quality, Samples
from workers.engine.chatterbox.conditionals import VoiceConditionals
from workers.engine.chatterbox.hops import Hop, HopPlan
from workers.engine.chatterbox.rendering import SoundState
from workers.engine.chatterbox.s3gen import EulerBatch, FlowInput


@dataclass(eq=False, slots=True)
class SpeechStream:
    """One segment's way from tokens to sound.

    The owner appends to `tokens`, speech tokens below 6561 only, and sets `ended` when no more will come. `deadline` is
    the moment, by `time.monotonic`, when whoever listens runs out of sound; while `paused` no hop is begun.
    """

    id: str
    voice: VoiceConditionals
    seed: int
    quality: Quality
    plan: HopPlan
    deadline: float
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    paused: bool = False
    state: SoundState | None = None
    work: Work | None = None


@dataclass(eq=False, slots=True)
class Work:
    """A hop being solved: its row in a batch and the Euler steps it still needs."""

    stream: SpeechStream
    hop: Hop
    flow: FlowInput
    batch: EulerBatch
    row: int
    steps: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sound of one hop. After the `last` its stream is over."""

    stream: SpeechStream
    samples: Samples
    last: bool
