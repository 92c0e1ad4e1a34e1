"""The Engine protocol: all that the rest of a worker knows of whatever makes the sound."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from fleet.contract import SAMPLE_RATE

Samples = npt.NDArray[np.float32]
"""Mono audio, shape [n], nominally within ±1."""


@dataclass(frozen=True, slots=True)
class Pause:
    """A segment of a text has ended, and so many seconds of silence follow it.

    `done` counts the segments that are over by now.
    """

    seconds: float
    done: int = 0

    def __len__(self) -> int:
        """Samples, as of sound."""
        return round(self.seconds * SAMPLE_RATE)


Sound = Samples | Pause
"""What an engine gives: samples, and where their segments end."""


def rendered(sound: Sound) -> Samples:
    """A pause as the silence it is; samples as they are."""
    return np.zeros(len(sound), np.float32) if isinstance(sound, Pause) else sound


Quality = Literal["draft", "standard", "high"]
"""How much work goes into the sound of the same words: Euler steps, for an engine that takes them."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One sample of a person's voice. `sample_rate` in Hz."""

    samples: Samples
    sample_rate: int


@dataclass(frozen=True, slots=True)
class Conditionals:
    """What an engine precomputes from recordings. Each engine keeps its own kind."""


@dataclass(frozen=True, slots=True)
class SamplingParameters:
    """How to speak. An engine honours those its capabilities name and ignores the rest."""

    exaggeration: float = 0.5
    cfg_weight: float = 0.5
    temperature: float = 0.8
    min_p: float = 0.05
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.2
    seed: int | None = None
    quality: Quality = "standard"


@dataclass(frozen=True, slots=True)
class Job:
    """One synthesis request inside a worker.

    `voice` is the id of one of the engine's own voices; `conditionals`, when given, replace its speaker. `language` is
    a tag the engine listed, or None for the voice's own.
    """

    id: str
    text: str
    voice: str
    language: str | None = None
    conditionals: Conditionals | None = None
    parameters: SamplingParameters = field(default_factory=SamplingParameters)


@dataclass(frozen=True, slots=True)
class EngineVoice:
    """A voice the engine has of itself. `aliases` are other names it answers to."""

    id: str
    name: str
    description: str
    language: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine is and what it honours, told truthfully.

    `parameters` names the fields of `SamplingParameters` that change its output. `voices[0]` is the default voice.
    `conditionals` names the kind that `prepare` makes; engines that say the same understand each other's.
    `demo_voice` marks an engine that stands in for the real model. `first_sound_s` is how long the engine took, when it
    was opened, from a short text to its first sound: what a wait for it is measured against.
    """

    engine: str
    model: str
    device: str
    sample_rate: int
    demo_voice: bool
    clones_voices: bool
    voices: tuple[EngineVoice, ...]
    languages: tuple[str, ...]
    parameters: frozenset[str]
    first_sound_s: float = 0.1
    conditionals: str = ""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine is doing at this moment.

    `reason` says why it is not ready. `silent_s` is how long the running jobs have seen no progress; 0 when none runs.
    `fatal` says why this process cannot speak again and must be replaced.
    """

    ready: bool
    reason: str | None
    running_jobs: int
    queued_jobs: int
    silent_s: float = 0.0
    fatal: str | None = None


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What an engine that decodes tokens has counted since it was opened, and what it holds now.

    `steps_per_s` is measured over the newest decode steps while something is decoded; None before there are any.
    `step_rows` and `euler_rows` add up the live rows of all steps, so that their ratio to the steps is the mean batch.
    `device_bytes` is what is allocated on the GPU; None on a CPU, where a process has its memory measured anyway.
    """

    steps_per_s: float | None
    steps: int
    step_rows: int
    tokens: int
    graph_replays: int
    eager_steps: int
    euler_steps: int
    euler_rows: int
    hops: int
    hops_late: int
    slots: int
    slots_used: int
    sequences_waiting: int
    conditionals_computed: int
    conditionals_hits: int
    device_bytes: int | None


class Engine(Protocol):
    """Text in, sound out. `submit` is called on an event loop; everything else from any thread."""

    @property
    def capabilities(self) -> Capabilities: ...

    def status(self) -> EngineStatus: ...

    def figures(self) -> EngineFigures | None:
        """What it has counted; None from an engine that decodes no tokens."""
        ...

    def prepare(self, recordings: Sequence[Recording]) -> Conditionals:
        """Measure a speaker. Blocks while it computes. Raises `InvalidValue` when the recordings hold no speech."""
        ...

    def pack(self, conditionals: Conditionals) -> bytes:
        """Conditionals of its own as bytes that outlive the process; no pickle."""
        ...

    def unpack(self, packed: bytes) -> Conditionals:
        """What `pack` was given. Raises `InvalidValue` for bytes that are damaged or of another kind."""
        ...

    def segments(self, job: Job) -> list[str]:
        """The pieces of the job's text that are spoken one by one, in order; what is no more than a pause is none."""
        ...

    def submit(self, job: Job) -> AsyncGenerator[Sound, None]:
        """The job's sound as it is made, at `capabilities.sample_rate`; closing the generator cancels it.

        Raises `Overloaded` when the engine is full, `NothingToSpeak` when the text has no sound, `SynthesisFailed` when
        the text cannot be spoken, `EngineLost` when another worker could.
        """
        ...

    def cancel(self, job_id: str) -> None:
        """Stop a job: its stream ends early. Unknown ids are ignored."""
        ...

    def close(self) -> None:
        """Stop every job and free what the engine holds. May be called twice."""
        ...
