"""The engine in one's own process, with the signatures of upstream's ChatterboxTTS: for notebooks, scripts, benches."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from huggingface_hub import HfApi
from torch import Tensor

from fleet.contract import SAMPLE_RATE
from fleet.errors import InvalidValue, NothingToSpeak
from workers.engine.base import Job, Quality, SamplingParameters
from workers.engine.chatterbox.capabilities import VOICE
from workers.engine.chatterbox.conditionals import VoiceConditionals
from workers.engine.chatterbox.engine import ChatterboxEngine
from workers.engine.chatterbox.options import EngineOptions, SpeechOptions, check_parameters
from workers.engine.chatterbox.recordings import read_recording
from workers.engine.chatterbox.sinks import Collector
from workers.engine.chatterbox.speeches import Speech

PUBLISHED = "ResembleAI/chatterbox"
"""The repository of the published model."""

Paths = str | Path | Sequence[str | Path]


class ChatterboxTTS:
    """Text to speech as upstream's class offers it, by the engine that the workers run.

    The voice is the model's own until `prepare_conditionals` or an `audio_prompt_path` sets another one. Several
    threads may generate at once and share the batch; they share the prepared voice too. Close it, or use it as a
    context manager, to end its thread.
    """

    sr = SAMPLE_RATE

    def __init__(self, engine: ChatterboxEngine) -> None:
        self.engine = engine
        self.conds: VoiceConditionals = engine.default_voice
        self._exaggeration = 0.5

    @classmethod
    def from_local(
        cls,
        ckpt_dir: str | Path,
        device: str | torch.device = "auto",
        *,
        tokens: EngineOptions | None = None,
        speech: SpeechOptions | None = None,
    ) -> Self:
        """From a directory with upstream's files, on `cpu`, `cuda` or `auto`.

        `tokens` and `speech` are the engine's options; the device given here goes before theirs. The watermark is on,
        as upstream's is. Raises what `ChatterboxEngine.open` raises, and `InvalidValue` for another device.
        """
        options = _with_device(tokens or EngineOptions(), device)
        return cls(ChatterboxEngine.open(ckpt_dir, options, speech))

    @classmethod
    def from_pretrained(cls, device: str | torch.device = "auto", *, revision: str = "main", **options: Any) -> Self:
        """From the published model: the hub is asked for what is not in its cache, at the commit that `revision` names.

        Raises `ModelMissing` when it cannot be had.
        """
        commit = HfApi().model_info(PUBLISHED, revision=revision).sha
        return cls.from_local(f"hub:{PUBLISHED}@{commit}", device, **options)

    @property
    def device(self) -> str:
        return self.engine.capabilities.device

    def prepare_conditionals(self, wav_fpath: Paths, exaggeration: float = 0.5) -> None:
        """Make the recording's speaker the voice of what is generated from now on; several recordings make one voice.

        `exaggeration` becomes the default of `generate`; it is applied to the prompt, so another value costs nothing.
        Raises `InvalidValue` when a recording is unfit or cannot be read.
        """
        check_parameters(SamplingParameters(exaggeration=exaggeration))
        self.conds = self.clone_voice(wav_fpath)
        self._exaggeration = exaggeration

    def clone_voice(self, paths: Paths) -> VoiceConditionals:
        """A speaker's conditionals, computed once for the same recordings.

        Raises `InvalidValue`, or `ModelInvalid` when the first recording shows the checkpoint's part for it damaged.
        """
        several = [paths] if isinstance(paths, str | Path) else paths
        return self.engine.prepare([read_recording(Path(path)) for path in several])

    def generate(self, text: str, **parameters: Any) -> Tensor:
        """Speech for a text, float32 [1, samples] at 24 kHz.

        Takes upstream's parameters (`repetition_penalty`, `min_p`, `top_p`, `audio_prompt_path`, `exaggeration`,
        `cfg_weight`, `temperature`; at 0 the likeliest token is taken) and `seed`, `top_k`, `quality` and
        `conditionals`. A text of up to 300 characters is spoken as upstream does, a longer one sentence by sentence.
        Raises `InvalidValue`, `NothingToSpeak`, `SynthesisFailed` and others of the engine.
        """
        return self.generate_many([{"text": text, **parameters}])[0]

    def generate_many(self, requests: Iterable[str | Mapping[str, Any]]) -> list[Tensor]:
        """`generate` for several texts, or mappings of its parameters, in one batch; in their order.

        No more than the engine's `max_jobs`. The first error is raised, and the others are cancelled.
        """
        jobs = [self._job(**({"text": one} if isinstance(one, str) else one)) for one in requests]
        collectors = [Collector() for _ in jobs]
        speeches: list[Speech] = []
        try:
            for job, collector in zip(jobs, collectors, strict=True):
                speeches.append(self.engine.start(job, collector, whole=True))
            return [torch.from_numpy(np.concatenate(list(collector)))[None] for collector in collectors]
        finally:
            for speech in speeches:
                self.engine.let_go(speech)

    def generate_stream(self, text: str, **parameters: Any) -> Iterator[Tensor]:
        """The same as it is made: float32 [1, samples] for one hop after the other. Closing the iterator cancels it."""
        collector = Collector()
        speech = self.engine.start(self._job(text, **parameters), collector)
        try:
            for samples in collector:
                yield torch.from_numpy(samples)[None]
        finally:
            self.engine.let_go(speech)

    def close(self) -> None:
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _job(
        self,
        text: str,
        *,
        repetition_penalty: float = 1.2,
        min_p: float = 0.05,
        top_p: float = 1.0,
        audio_prompt_path: Paths | None = None,
        exaggeration: float | None = None,
        cfg_weight: float = 0.5,
        temperature: float = 0.8,
        seed: int | None = None,
        top_k: int = 0,
        quality: Quality = "standard",
        conditionals: VoiceConditionals | None = None,
    ) -> Job:
        if not isinstance(text, str):
            raise InvalidValue(f"the text must be a string, not {type(text).__name__}", param="text")
        if not text.strip():
            raise NothingToSpeak("the text is empty", param="text")
        if conditionals is not None and not isinstance(conditionals, VoiceConditionals):
            raise InvalidValue("conditionals are what clone_voice returns", param="conditionals")
        if exaggeration is None:
            exaggeration = self._exaggeration
        voice = conditionals or self.conds
        if audio_prompt_path is not None:
            if conditionals is not None:
                raise InvalidValue("give conditionals or a recording, not both", param="conditionals")
            self.conds = voice = self.clone_voice(audio_prompt_path)
            self._exaggeration = exaggeration
        return Job(
            id=uuid.uuid4().hex,
            text=text,
            voice=VOICE.id,
            conditionals=voice,
            parameters=SamplingParameters(
                exaggeration=exaggeration,
                cfg_weight=cfg_weight,
                temperature=temperature,
                min_p=min_p,
                top_p=top_p,
                top_k=top_k,
                repetition_penalty=repetition_penalty,
                seed=seed,
                quality=quality,
            ),
        )


def _with_device(options: EngineOptions, device: str | torch.device) -> EngineOptions:
    try:
        found = torch.device("cpu" if device == "auto" else device)
    except (RuntimeError, TypeError) as error:
        raise InvalidValue(f"there is no device {device!r}", param="device") from error
    if found.index not in (None, 0):
        message = "this engine runs on the first visible device; choose it with CUDA_VISIBLE_DEVICES"
        raise InvalidValue(message, param="device")
    kind = "auto" if device == "auto" else found.type
    known: dict[str, Literal["auto", "cpu", "cuda"]] = {"auto": "auto", "cpu": "cpu", "cuda": "cuda"}
    if kind not in known:
        raise InvalidValue(f"this engine runs on cpu or cuda, not on {device}", param="device")
    return replace(options, device=known[kind])
