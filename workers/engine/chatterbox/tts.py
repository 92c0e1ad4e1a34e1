"""The engine in one's own process, with the signatures of upstream's ChatterboxTTS: for notebooks, scripts, benches."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack

import numpy as np
import torch
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
from workers.engine.chatterbox.weights import newest

PUBLISHED = "ResembleAI/chatterbox"
"""The repository of the published model."""

Paths = str | Path | Sequence[str | Path]


class Parameters(TypedDict, total=False):
    """What `generate` takes beside the text, with the same defaults."""

    repetition_penalty: float
    min_p: float
    top_p: float
    audio_prompt_path: Paths | None
    exaggeration: float | None
    cfg_weight: float
    temperature: float
    seed: int | None
    top_k: int
    quality: Quality
    conditionals: VoiceConditionals | None


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
        """From the published model, at the commit that `revision` names, downloaded where it is not in the hub's cache.

        A hub that is away is not needed once everything is there. Raises `ModelMissing`, and what `from_local` raises.
        """
        return cls.from_local(newest(PUBLISHED, revision), device, **options)

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

    def generate(  # noqa: PLR0917 - upstream's signature
        self,
        text: str,
        repetition_penalty: float = 1.2,
        min_p: float = 0.05,
        top_p: float = 1.0,
        audio_prompt_path: Paths | None = None,
        exaggeration: float | None = None,
        cfg_weight: float = 0.5,
        temperature: float = 0.8,
        *,
        seed: int | None = None,
        top_k: int = 0,
        quality: Quality = "standard",
        conditionals: VoiceConditionals | None = None,
    ) -> Tensor:
        """Speech for a text, float32 [1, samples] at 24 kHz.

        The first eight are upstream's, in its order; a temperature of 0 takes the likeliest token, and an exaggeration
        of None is that of the prepared voice, else 0.5. `conditionals` are those of `clone_voice`, for this text alone.
        A text of up to 300 characters is spoken as upstream does, a longer one sentence by sentence. Raises
        `InvalidValue`, `NothingToSpeak`, `SynthesisFailed` and others of the engine.
        """
        request = {
            "text": text,
            "repetition_penalty": repetition_penalty,
            "min_p": min_p,
            "top_p": top_p,
            "audio_prompt_path": audio_prompt_path,
            "exaggeration": exaggeration,
            "cfg_weight": cfg_weight,
            "temperature": temperature,
            "seed": seed,
            "top_k": top_k,
            "quality": quality,
            "conditionals": conditionals,
        }
        return self.generate_many([request])[0]

    def generate_many(self, requests: Iterable[str | Mapping[str, Any]]) -> list[Tensor]:
        """`generate` for several texts, or mappings of its parameters, in one batch; in their order.

        The engine holds as many as its `max_jobs`; those beyond are begun as others end. The first error is raised, and
        the rest is cancelled.
        """
        if isinstance(requests, str | Mapping):
            raise InvalidValue("the requests must be a list of texts or mappings", param="requests")
        asked = [{"text": one} if isinstance(one, str) else dict(one) for one in requests]
        jobs = [self._job(request.pop("text", None), request) for request in asked]
        collectors = [Collector() for _ in jobs]
        waiting = iter(zip(jobs, collectors, strict=True))
        speeches: list[Speech] = []
        sounds: list[Tensor] = []
        try:
            for job, collector in islice(waiting, self.engine.max_jobs):
                speeches.append(self.engine.start(job, collector, whole=True))
            for collector in collectors:
                sounds.append(torch.from_numpy(np.concatenate(list(collector)))[None])
                for job, following in islice(waiting, 1):
                    speeches.append(self.engine.start(job, following, whole=True))
        finally:
            for speech in speeches:
                self.engine.let_go(speech)
        return sounds

    def generate_stream(self, text: str, **parameters: Unpack[Parameters]) -> Generator[Tensor, None, None]:
        """`generate` as the sound is made: float32 [1, samples] for one hop after the other.

        What is asked for is checked, and the voice taken, at once; the work begins with the first piece. Closing the
        generator cancels it.
        """
        return self._pieces(self._job(text, parameters))

    def _pieces(self, job: Job) -> Generator[Tensor, None, None]:
        collector = Collector()
        speech = self.engine.start(job, collector)
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

    def _job(self, text: object, parameters: Mapping[str, Any]) -> Job:
        if not isinstance(text, str):
            raise InvalidValue(f"the text must be a string, not {type(text).__name__}", param="text")
        if not text.strip():
            raise NothingToSpeak("the text is empty", param="text")
        for name in parameters.keys() - Parameters.__annotations__.keys():
            raise InvalidValue(f"there is no parameter {name}", param=name)
        sampling = dict(parameters)
        conditionals, recording = sampling.pop("conditionals", None), sampling.pop("audio_prompt_path", None)
        if sampling.get("exaggeration") is None:
            sampling["exaggeration"] = self._exaggeration
        found = SamplingParameters(**sampling)
        check_parameters(found)
        voice = self._voice(conditionals, recording, found.exaggeration)
        return Job(uuid.uuid4().hex, text, VOICE.id, conditionals=voice, parameters=found)

    def _voice(self, conditionals: object, recording: Paths | None, exaggeration: float) -> VoiceConditionals:
        """Who speaks; a recording's speaker is the prepared one from now on."""
        if conditionals is not None and recording is not None:
            raise InvalidValue("give conditionals or a recording, not both", param="conditionals")
        if recording is not None:
            voice = self.clone_voice(recording)
            self.conds, self._exaggeration = voice, exaggeration
            return voice
        chosen = self.conds if conditionals is None else conditionals
        if not isinstance(chosen, VoiceConditionals):
            raise InvalidValue("conditionals are what clone_voice returns", param="conditionals")
        return chosen


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
