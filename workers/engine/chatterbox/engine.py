"""The real model behind the Engine protocol: one thread owns the device, admits, decodes, vocodes and delivers."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import structlog
import torch

from fleet.contract import SAMPLE_RATE
from fleet.errors import EngineLost, InvalidValue, NothingToSpeak, Overloaded
from workers.engine.base import (
    Capabilities,
    Conditionals,
    EngineFigures,
    EngineStatus,
    Job,
    Recording,
    SamplingParameters,
    Sound,
)
from workers.engine.chatterbox.capabilities import LANGUAGE, VOICE, capabilities_of, figures_of
from workers.engine.chatterbox.conditionals import VoiceConditionals
from workers.engine.chatterbox.mishaps import EngineBroken, Mishaps
from workers.engine.chatterbox.model import Model
from workers.engine.chatterbox.options import EngineOptions, SpeechOptions, check_parameters, plain
from workers.engine.chatterbox.pace import Pace
from workers.engine.chatterbox.sinks import FirstSound, Sink
from workers.engine.chatterbox.speaking import SpeakingJobs
from workers.engine.chatterbox.speeches import Speech, segments_of
from workers.engine.outbox import Outbox
from workers.engine.segments import speakable

log = structlog.get_logger()

_CHUNK_LIMIT = SAMPLE_RATE
_TRIAL_TEXT = "Ready."
_SHUTTING_DOWN = "the engine is shutting down"
_IDLE_S = 0.5
"""How long the thread sleeps when nothing can be done and nobody wakes it."""


class ChatterboxEngine:
    """T3 and S3Gen behind the Engine protocol.

    Jobs share every step. A job's sound depends on the job and its seed alone, never on what else runs, to rounding.
    """

    def __init__(self, model: Model, options: SpeechOptions) -> None:
        self._model = model
        self._options = options
        self._tokens, self._vocoder = model.tokens, model.vocoder
        self._lock = threading.Condition()
        self._inbox: deque[Speech] = deque()
        self._numbers = itertools.count()
        self._poked = False
        self._closed = False
        self._speaking = SpeakingJobs(model.tokens, model.vocoder, options)
        self._pace = Pace()
        self._mishaps = Mishaps(model.drop_caches)
        self._captures: Iterator[Callable[[], None]] = iter(())
        self._thread = threading.Thread(target=self._run, name="chatterbox-owner", daemon=True)
        self._thread.start()
        first_sound_s = self._first_sound()
        on_gpu = model.device.type == "cuda"
        self._stuck_after_s = options.stuck_after_s or (30.0 if on_gpu else max(120.0, 20 * first_sound_s))
        self._capabilities = capabilities_of(model, first_sound_s)
        self._captures = model.captures()
        self._wake()

    @classmethod
    def open(
        cls,
        checkpoint: str | Path,
        tokens: EngineOptions | None = None,
        speech: SpeechOptions | None = None,
    ) -> Self:
        """Load a checkpoint directory or hub revision and speak a first word.

        Raises `ModelMissing`, `ModelInvalid`, `EngineUnavailable` or `InvalidSettings`.
        """
        speech = speech or SpeechOptions()
        return cls(Model.load(checkpoint, tokens or EngineOptions(), speech), speech)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @property
    def max_jobs(self) -> int:
        return self._options.max_jobs

    @property
    def default_voice(self) -> VoiceConditionals:
        return self._model.voice

    def status(self) -> EngineStatus:
        with self._lock:
            queued, running = len(self._inbox), len(self._speaking)
        silent_s = self._pace.silent_s if running or queued else 0.0
        fatal = self._mishaps.fatal
        if fatal is None and silent_s > self._stuck_after_s:
            fatal = f"the engine's thread has made no step for {silent_s:.0f} s"
        if fatal is None and not (self._thread.is_alive() or self._closed):
            fatal = "the engine's thread has ended"
        reason = fatal or (_SHUTTING_DOWN if self._closed else None)
        return EngineStatus(reason is None, reason, running, queued, silent_s, fatal)

    def figures(self) -> EngineFigures:
        return figures_of(self._model, self._pace, late=self._speaking.late)

    def prepare(self, recordings: Sequence[Recording]) -> VoiceConditionals:
        """What the model needs of a speaker, computed once, on the CPU. Raises `InvalidValue` for unfit recordings."""
        return self._model.conditionals.get(recordings)

    def pack(self, conditionals: Conditionals) -> bytes:
        return self._model.conditionals.pack(conditionals)

    def unpack(self, packed: bytes) -> VoiceConditionals:
        return self._model.conditionals.unpack(packed)

    def segments(self, job: Job) -> list[str]:
        return [found.text for found in segments_of(speakable(job.text), language=LANGUAGE) if found.text]

    async def submit(self, job: Job) -> AsyncGenerator[Sound, None]:
        outbox = Outbox(chunk_limit=_CHUNK_LIMIT, on_read=self._wake)
        speech = self.start(job, outbox)
        try:
            while (samples := await outbox.read()) is not None:
                yield samples
        finally:
            self.let_go(speech)

    def start(self, job: Job, sink: Sink, *, whole: bool = False) -> Speech:
        """Queue a job whose sound goes to `sink`; with `whole`, each segment as one piece, as upstream makes it.

        Raises `InvalidValue`, `NothingToSpeak`, `Overloaded` or `EngineLost`; later errors end the sink.
        """
        check_parameters(job.parameters)
        job = replace(job, parameters=plain(job.parameters))
        if any("\ud800" <= character <= "\udfff" for character in job.text):
            raise InvalidValue("the text holds half a surrogate pair, which is no character", param="text")
        if not (segments := segments_of(speakable(job.text), language=LANGUAGE)):
            raise NothingToSpeak("the text holds nothing that can be spoken")
        seed = job.parameters.seed
        speech = Speech(
            name=f"{job.id}:{next(self._numbers)}",
            job=job,
            voice=self._model.voice_of(job.conditionals),
            segments=segments,
            sink=sink,
            seed=secrets.randbits(63) if seed is None else seed,
            whole=whole,
        )
        with self._lock:
            if self._closed or self._mishaps.fatal is not None:
                raise EngineLost(self._mishaps.fatal or _SHUTTING_DOWN, retry_after=1)
            if len(self._inbox) + len(self._speaking) >= self._options.max_jobs:
                raise Overloaded(f"all {self._options.max_jobs} places of this worker are taken", retry_after=1)
            self._inbox.append(speech)
        self._wake()
        return speech

    def cancel(self, job_id: str) -> None:
        with self._lock:
            speeches = [*self._inbox, *self._speaking]
        for speech in speeches:
            if speech.job.id == job_id:
                self.let_go(speech)

    def let_go(self, speech: Speech) -> None:
        """Cancel what `start` returned; one that is over stays so."""
        speech.cancelled = True
        self._wake()

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._wake()
        self._thread.join()

    def _wake(self) -> None:
        with self._lock:
            self._poked = True
            self._lock.notify()

    def _run(self) -> None:
        error = EngineLost(_SHUTTING_DOWN, retry_after=1)
        try:
            with torch.inference_mode(), self._model.lane():
                while not self._closed:
                    self._admit()
                    worked = self._guarded("decoding", self._decode)
                    worked |= self._guarded("vocoding", self._vocode)
                    self._pace.alive()
                    if not worked:
                        self._rest()
        except EngineBroken as broken:
            error = EngineLost(f"the engine is broken: {broken}", retry_after=1)
        except BaseException as problem:
            self._mishaps.broke(problem)
            error = EngineLost("the engine is broken", retry_after=1)
            raise
        finally:
            self._end_all(error)

    def _admit(self) -> None:
        """Take in new jobs, let go of cancelled ones, begin the segments there is room for."""
        with self._lock:
            while self._inbox:
                self._speaking.add(self._inbox.popleft())
        self._speaking.go_on()

    def _decode(self) -> bool:
        """One tick of the token engine; its tokens go to their streams."""
        if self._tokens.scheduler.idle:
            self._pace.pause()
            return False
        advanced = self._tokens.tick()
        self._pace.step(tokens=len(advanced), rows=sum(sequence.rows for sequence in advanced))
        self._speaking.hand_over()
        shortage, self._tokens.shortage = self._tokens.shortage, None
        if shortage is not None:
            raise shortage
        if advanced:
            self._mishaps.went_well("decoding")
        return True

    def _vocode(self) -> bool:
        """The vocoder's next piece of work; sound that has arrived goes to its job."""
        self._speaking.set_deadlines()
        before = self._vocoder.counts.euler_steps
        chunks = self._vocoder.step(wait=self._tokens.scheduler.idle)
        for chunk in chunks:
            self._speaking.deliver(chunk)
        if chunks:
            self._mishaps.went_well("vocoding")
        return bool(chunks) or self._vocoder.counts.euler_steps > before or self._vocoder.waiting_for_device

    def _guarded(self, name: str, work: Callable[[], bool]) -> bool:
        """Do a piece of work; what goes wrong ends the jobs it was for, and the engine only if it cannot go on."""
        try:
            return work()
        except Exception as problem:  # noqa: BLE001 - the thread must outlive any one job
            error = self._mishaps.take(problem, name)
            if name == "vocoding":
                self._speaking.fail(self._vocoder.abort(), error)
            self._speaking.hand_over()
            return True

    def _rest(self) -> None:
        """Record a graph if there is one to record, else sleep until woken."""
        if not self._speaking and (capture := next(self._captures, None)) is not None:
            self._capture(capture)
            return
        with self._lock:
            if not self._poked:
                self._lock.wait(_IDLE_S)
            self._poked = False

    def _capture(self, capture: Callable[[], None]) -> None:
        """What cannot be recorded for want of memory runs eagerly."""
        try:
            capture()
        except torch.OutOfMemoryError as error:
            log.warning("capture_out_of_memory", error=str(error))
            self._captures = iter(())
            self._model.drop_caches()

    def _end_all(self, error: EngineLost) -> None:
        with self._lock:
            waiting = list(self._inbox)
            self._inbox.clear()
            self._closed = True
        for speech in waiting:
            speech.sink.end(error)
        self._speaking.end_all(error)

    def _first_sound(self) -> float:
        """Seconds from a short text to its first sound. Raises what stands in its way."""
        sink = FirstSound()
        job = Job("first-sound", _TRIAL_TEXT, VOICE.id, parameters=SamplingParameters(seed=0))
        began = time.monotonic()
        speech = self.start(job, sink)
        sink.arrived.wait()
        took_s = time.monotonic() - began
        self.let_go(speech)
        sink.ended.wait()  # its place is free before anybody else asks for one
        if sink.error is not None:
            self.close()
            raise sink.error
        return took_s
