"""The whole engine on a tiny checkpoint, and those who listen to it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
import torch

from tests.running import wait_for
from workers.engine.base import Job, Samples, SamplingParameters, Sound, rendered
from workers.engine.chatterbox.capabilities import VOICE
from workers.engine.chatterbox.conditionals import ReferencePrompt, VoiceConditionals
from workers.engine.chatterbox.engine import ChatterboxEngine
from workers.engine.chatterbox.opening import open_with
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.sequence import Sequence
from workers.engine.chatterbox.sinks import Collector
from workers.engine.chatterbox.speeches import Speech
from workers.engine.chatterbox.token_encoder import VOCABULARY

SAMPLES_PER_TOKEN = 960

QUICK: dict[str, Any] = {
    "device": "cpu",
    "precision": "fp32",
    "positions": 512,
    "max_rows": 16,
    "max_tokens": 32,
    "n_steps": 2,
    "prompt_s": 0.4,
    "watermark": False,
}
"""Options that make a second of sound in a fraction of one."""


@contextmanager
def opened(checkpoint: Path, **options: Any) -> Iterator[ChatterboxEngine]:
    """An engine of one's own, closed at the end."""
    engine = open_with(str(checkpoint), QUICK | options)
    try:
        yield engine
    finally:
        engine.close()


def new_job(text: str = "Hello there.", *, conditionals: VoiceConditionals | None = None, **parameters: Any) -> Job:
    """A job with an id of its own, seeded unless told otherwise."""
    drawn = SamplingParameters(**({"seed": 1} | parameters))
    return Job(uuid.uuid4().hex, text, VOICE.id, conditionals=conditionals, parameters=drawn)


def again(job: Job) -> Job:
    """The same job under another id."""
    return replace(job, id=uuid.uuid4().hex)


async def hear(engine: ChatterboxEngine, job: Job) -> Samples:
    """All of a job's sound, read on the event loop as a worker reads it."""
    return joined([rendered(sound) async for sound in engine.submit(job)])


def joined(pieces: list[Samples]) -> Samples:
    return np.concatenate([np.zeros(0, np.float32), *pieces])


class Listener(Collector):
    """A sink that a thread waits for, and that knows what has come so far."""

    def __init__(self, on_sound: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.pieces: list[Samples] = []
        self.ended = threading.Event()
        self._on_sound = on_sound

    def put(self, sound: Sound) -> None:
        if self._on_sound is not None:
            self._on_sound()
        self.pieces.append(rendered(sound))
        super().put(sound)

    def end(self, error: Any = None) -> None:
        super().end(error)
        self.ended.set()

    def whole(self) -> Samples:
        """Waits for the end. Raises the error there was."""
        return joined(list(self))


def begin(engine: ChatterboxEngine, job: Job, *, whole: bool = False) -> tuple[Speech, Listener]:
    listener = Listener()
    return engine.start(job, listener, whole=whole), listener


def speak(engine: ChatterboxEngine, job: Job, *, whole: bool = False) -> Samples:
    """All of a job's sound; with `whole`, each segment made at once."""
    return begin(engine, job, whole=whole)[1].whole()


def held(engine: ChatterboxEngine) -> dict[str, int]:
    """What jobs take in an engine, all of it 0 when there are none."""
    status, scheduler, vocoder = engine.status(), engine._tokens.scheduler, engine._vocoder
    return {
        "running": status.running_jobs,
        "queued": status.queued_jobs,
        "sequences": scheduler.waiting + scheduler.running,
        "slots": engine._tokens.slots.count - scheduler.free_slots,
        "segments": len(engine._speaking._streams),
        "streams": vocoder.streams,
        "rows": sum(batch.capacity - batch.free for batch in vocoder._batches.values()),
        "sounds": len(vocoder._rendered),
    }


def wait_idle(engine: ChatterboxEngine, limit_s: float = 1.0) -> None:
    """Fails with what is still held."""
    try:
        wait_for(lambda: not any(held(engine).values()), limit_s, every_s=0.005)
    except AssertionError:
        assert {name: count for name, count in held(engine).items() if count} == {}


def record_sequences(engine: ChatterboxEngine, patch: pytest.MonkeyPatch) -> list[Sequence]:
    """The sequences of all segments that are begun from now on."""
    sequences: list[Sequence] = []
    add = engine._tokens.add

    def recording(*arguments: Any, **options: Any) -> Sequence:
        sequences.append(add(*arguments, **options))
        return sequences[-1]

    patch.setattr(engine._tokens, "add", recording)
    return sequences


def spoken_tokens(sequence: Sequence) -> list[int]:
    """Those that S3Gen knows."""
    return [token for token in sequence.tokens if token < VOCABULARY]


def another_voice(engine: ChatterboxEngine) -> VoiceConditionals:
    """A speaker with nothing in common with the built-in one, of a shorter recording."""
    numbers = torch.Generator().manual_seed(7)
    config = engine._tokens.config
    speaker = torch.rand(config.speaker_dim, generator=numbers)
    return VoiceConditionals.of(
        SpeakerPrompt.checked(speaker / speaker.norm(), torch.randint(0, VOCABULARY, (40,), generator=numbers), config),
        ReferencePrompt.checked(
            torch.randint(0, VOCABULARY, (60,), generator=numbers),
            torch.randn(120, 80, generator=numbers) - 4,
            torch.randn(192, generator=numbers),
        ),
    )


class Clock:
    """The monotonic clock of one module, which stands still."""

    def __init__(self, patch: pytest.MonkeyPatch, module: ModuleType) -> None:
        self.now = 1000.0
        patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))


class Gate:
    """A method of the engine's thread that waits at its entry, on the `nth` call, until the gate is opened."""

    def __init__(self, patch: pytest.MonkeyPatch, where: object, name: str, *, nth: int = 1) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()
        self._calls = 0
        original = getattr(where, name)

        def gated(*arguments: Any, **options: Any) -> Any:
            self._calls += 1
            if self._calls == nth:
                self.reached.set()
                self._open.wait()
            return original(*arguments, **options)

        patch.setattr(where, name, gated)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()


def raising(
    patch: pytest.MonkeyPatch, where: object, name: str, error: Exception, *, times: int | None = 1, nth: int = 1
) -> None:
    """A method raises `error` from its `nth` call on, so many times or always, and is itself again."""
    original = getattr(where, name)
    calls = 0

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= nth and (times is None or calls < nth + times):
            raise error
        return original(*arguments, **options)

    patch.setattr(where, name, call)
