"""A checkpoint on its device, with everything that its two halves need to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

import torch

from fleet.errors import InvalidValue
from fleet.startup_errors import InvalidSettings, ModelInvalid
from workers.engine.base import Conditionals
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.conditionals import LONGEST_REFERENCE, DeviceVoices, VoiceConditionals
from workers.engine.chatterbox.conditionals_store import ConditionalsStore
from workers.engine.chatterbox.graphs import GraphPool
from workers.engine.chatterbox.hops import FIRST_HOPS, LOOKAHEAD
from workers.engine.chatterbox.options import EngineOptions, SpeechOptions
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.reference import ReferenceEncoder
from workers.engine.chatterbox.rendering import Renderer
from workers.engine.chatterbox.s3gen import S3Gen
from workers.engine.chatterbox.speeches import SEGMENTS_AT_ONCE
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.token_engine import TokenEngine
from workers.engine.chatterbox.vocoder import Vocoder
from workers.engine.chatterbox.watermark import Watermarker
from workers.engine.chatterbox.weights import TensorFile, find_checkpoint, read_conditionals

_TOKENS_PER_SECOND = 25
_GPU_ROWS, _CPU_ROWS = 16, 1
"""Streams that share an Euler step. On a CPU one alone keeps all cores busy (docs/lab-notes.md)."""

_LONGEST_SEGMENT = 400
"""Tokens: 300 characters gave 398 at most, where each is replaced by two."""

_FIRST_STEP_ROWS = (2, 4)
"""What a first request needs: its steps are recorded before the engine says it is ready."""


@dataclass(frozen=True, slots=True)
class Model:
    """What an engine runs. On CUDA `decoding` is the stream of the token engine; the vocoder has one of its own."""

    tokens: TokenEngine
    vocoder: Vocoder
    voice: VoiceConditionals
    conditionals: ConditionalsStore
    voices: DeviceVoices
    revision: str
    device: torch.device
    decoding: torch.cuda.Stream | None

    @classmethod
    def load(cls, checkpoint: str | Path, tokens: EngineOptions, speech: SpeechOptions) -> Self:
        """From a directory or hub revision. Raises `ModelMissing`, `ModelInvalid`, `InvalidSettings` and others."""
        directory = find_checkpoint(checkpoint)
        config = read_config(TensorFile(directory / ENGLISH.t3))
        most = min(config.speech_positions - 1, tokens.positions - config.prompt_positions(_LONGEST_SEGMENT))
        if speech.max_tokens > most:
            message = f"max_tokens can be {most} at most: a slot of {tokens.positions} positions holds a text too"
            raise InvalidSettings(message, param="max_tokens")
        if speech.conditionals is not None:
            _make_directory(speech.conditionals)
        TensorFile(directory / ENGLISH.voice_encoder)  # read at the first recording, but known to be whole from here
        found = read_conditionals(directory / ENGLISH.conditionals)
        try:
            voice = VoiceConditionals.from_upstream(found, config)
        except InvalidValue as error:
            raise ModelInvalid(f"{directory / ENGLISH.conditionals} does not fit the model: {error}") from error
        # All that its jobs can have waiting fits into the queue: jobs are refused before they are admitted.
        waiting = max(tokens.max_waiting, speech.max_jobs * SEGMENTS_AT_ONCE)
        token_engine = TokenEngine(
            TensorFile(directory / ENGLISH.t3),
            directory / ENGLISH.tokenizer,
            voice.t3,
            replace(tokens, max_waiting=waiting),
        )
        device = token_engine.device
        encoder = ReferenceEncoder(directory, config)
        s3gen = S3Gen(
            TensorFile(directory / ENGLISH.s3gen),
            device=device,
            dtype=token_engine.dtype,
            steps=speech.n_steps,
            longest=LONGEST_REFERENCE + max(speech.max_tokens, FIRST_HOPS[0] + LOOKAHEAD),
        )
        voices = DeviceVoices(device, speech.voice_memory)
        on_gpu = device.type == "cuda"
        # Lower numbers go first: what decodes delays everybody, the vocoder only whoever listens to it.
        lowest, highest = torch.cuda.current_stream().priority_range() if on_gpu else (0, 0)
        vocoder = Vocoder(
            s3gen,
            Renderer(s3gen.hift, Watermarker(device) if speech.watermark else None),
            voices,
            rows=speech.vocoder_rows or (_GPU_ROWS if on_gpu else _CPU_ROWS),
            prompt_tokens=max(1, round(speech.prompt_s * _TOKENS_PER_SECOND)),
            pool=GraphPool() if on_gpu and tokens.capture else None,
            lane=torch.cuda.Stream(priority=lowest) if on_gpu else None,
        )
        decoding = torch.cuda.Stream(priority=highest) if on_gpu else None
        if on_gpu:
            torch.cuda.synchronize()  # the weights were loaded on another stream
        model = cls(
            token_engine,
            vocoder,
            voice,
            ConditionalsStore(encoder, speech.conditionals),
            voices,
            encoder.revision,
            device,
            decoding,
        )
        with torch.inference_mode(), model.lane():
            token_engine.capture(_FIRST_STEP_ROWS)
            vocoder.warm(voice)
        return model

    @property
    def device_name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def lane(self) -> AbstractContextManager[object]:
        """The stream that the token engine's work is launched on."""
        return nullcontext() if self.decoding is None else torch.cuda.stream(self.decoding)

    def voice_of(self, conditionals: Conditionals | None) -> VoiceConditionals:
        """Those a job came with, or the model's own. Raises `InvalidValue` for another engine's or model's."""
        if conditionals is None:
            return self.voice
        if not isinstance(conditionals, VoiceConditionals):
            raise InvalidValue("the conditionals are another engine's", param="conditionals")
        SpeakerPrompt.checked(conditionals.t3.speaker, torch.tensor(conditionals.t3.tokens), self.tokens.config)
        return conditionals

    def captures(self) -> Iterator[Callable[[], None]]:
        """Graphs that are worth recording when there is nothing else to do, one after the other."""
        if self.device.type == "cuda" and self.tokens.options.capture:
            yield from self.vocoder.captures()
            for size in self.tokens.steps.sizes:
                yield partial(self.tokens.capture, [size])

    def drop_caches(self) -> None:
        """Give back all memory on the device that only saves work."""
        self.tokens.drop_caches()
        self.voices.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def device_bytes(self) -> int | None:
        return torch.cuda.memory_allocated(self.device) if self.device.type == "cuda" else None


def _make_directory(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{directory} cannot be made: {error.strerror}"
        raise InvalidSettings(message, param="conditionals") from error
