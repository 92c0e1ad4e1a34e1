"""The embedded engine: one owner thread speaks the jobs' segments in turn, and sound goes back as it is made."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from typing import cast

import numpy as np
import soxr
import structlog

from fleet.contract import SAMPLE_RATE
from fleet.errors import EngineLost, FleetError, InternalError, NothingToSpeak, Overloaded
from workers.engine.base import Capabilities, Conditionals, EngineStatus, Job, Pause, Recording, Samples, Sound
from workers.engine.espeak import speakers
from workers.engine.espeak.library import EspeakProcess, Turn
from workers.engine.outbox import Outbox
from workers.engine.pauses import SENTENCE_PAUSE_S, passages
from workers.engine.segments import speakable, split

log = structlog.get_logger()

_SEGMENT_CHARS = 200
"""About 12 s of speech in English, 70 s in Chinese, and 20 ms of work: the longest one job keeps the others waiting."""

_BUFFER_LIMIT = 20 * SAMPLE_RATE
"""Samples a job may have waiting for its reader before its turn is passed over."""

_CHUNK_LIMIT = SAMPLE_RATE
"""Samples handed over at once, so that whoever encodes them is not kept long."""

_NO_SOUND = "the text holds nothing that can be spoken"
_SHUTTING_DOWN = "the engine is shutting down"


class _Speech:
    """A job being spoken. Its fields belong to the owner thread, but for `cancelled`, which anyone may set."""

    def __init__(self, job: Job, turns: deque[Turn | Pause], input_rate: int, outbox: Outbox) -> None:
        self.job = job
        self.turns = turns
        self.outbox = outbox
        self.input_rate = input_rate
        self.silence: list[Sound] = []
        self.heard = False
        self.cancelled = False


class EspeakEngine:
    """libespeak-ng behind the Engine protocol.

    Jobs take turns segment by segment, so a long text does not hold up a short one, and a job whose reader is slow
    waits for it. Output depends on the job alone, never on what else runs.
    """

    def __init__(self, *, max_jobs: int = 256) -> None:
        self._max_jobs = max_jobs
        self._process = EspeakProcess()
        self._lock = threading.Condition()
        self._rotation: deque[_Speech] = deque()
        self._speaking: _Speech | None = None
        self._closed = False
        self._progress_at = time.monotonic()
        self._capabilities = Capabilities(
            engine="espeak",
            model=f"espeak-ng-{self._process.version}",
            device="cpu",
            sample_rate=SAMPLE_RATE,
            demo_voice=True,
            clones_voices=speakers.can_measure(),
            voices=speakers.VOICES,
            languages=tuple(self._process.voice_of),
            parameters=frozenset({"exaggeration"}),
            conditionals=speakers.KIND,
        )
        self._thread = threading.Thread(target=self._run, name="espeak-owner", daemon=True)
        self._thread.start()

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def status(self) -> EngineStatus:
        with self._lock:
            running = int(self._speaking is not None)
            queued = len(self._rotation) - int(self._speaking in self._rotation)
            silent_s = time.monotonic() - self._progress_at if running else 0.0
        alive = self._thread.is_alive() and not self._closed
        return EngineStatus(alive, None if alive else "the engine's thread has ended", running, queued, silent_s)

    def figures(self) -> None:
        return None

    def prepare(self, recordings: Sequence[Recording]) -> Conditionals:
        return speakers.measure(recordings)

    def pack(self, conditionals: Conditionals) -> bytes:
        return speakers.pack(conditionals)

    def unpack(self, packed: bytes) -> Conditionals:
        return speakers.unpack(packed)

    def segments(self, job: Job) -> list[str]:
        return [turn.text for turn in self._turns(job) if isinstance(turn, Turn)]

    async def submit(self, job: Job) -> AsyncGenerator[Sound, None]:
        outbox = Outbox(chunk_limit=_CHUNK_LIMIT, on_read=self._wake)
        speech = _Speech(job, self._turns(job), self._process.sample_rate, outbox)
        self._admit(speech)
        try:
            while (sound := await outbox.read()) is not None:
                yield sound
        finally:
            self._withdraw(speech)

    def cancel(self, job_id: str) -> None:
        with self._lock:
            for speech in self._rotation:
                if speech.job.id == job_id:
                    speech.cancelled = True
            self._lock.notify()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify()
        self._thread.join()
        self._process.close()

    def _turns(self, job: Job) -> deque[Turn | Pause]:
        voice = next(voice for voice in speakers.VOICES if voice.id == job.voice)
        speaker = speakers.speaker_for(job.voice, job.conditionals)
        language = job.language or voice.language
        name = self._process.voice_of[language]
        exaggeration = job.parameters.exaggeration
        turns: deque[Turn | Pause] = deque()
        done = 0
        found = passages(speakable(job.text))
        for passage in found:
            for index, segment in enumerate(split(passage.text, language=language, limit=_SEGMENT_CHARS)):
                if index:
                    turns.append(Pause(SENTENCE_PAUSE_S, done))
                done += 1
                turns.append(
                    Turn(
                        text=segment,
                        voice=f"{name}+{speaker.variant}" if speaker.variant else name,
                        pitch=speaker.pitch,
                        range=speakers.pitch_range(exaggeration),
                        rate=speakers.words_per_minute(exaggeration, speaker.rate_factor),
                    )
                )
            if passage.pause_s or passage is not found[-1]:
                turns.append(Pause(passage.pause_s, done))
        return turns

    def _admit(self, speech: _Speech) -> None:
        with self._lock:
            if self._closed:
                raise EngineLost(_SHUTTING_DOWN, retry_after=1)
            if len(self._rotation) >= self._max_jobs:
                raise Overloaded(f"all {self._max_jobs} places of this worker are taken", retry_after=1)
            self._rotation.append(speech)
            self._lock.notify()

    def _withdraw(self, speech: _Speech) -> None:
        with self._lock:
            speech.cancelled = True
            if speech in self._rotation:
                self._rotation.remove(speech)

    def _wake(self) -> None:
        with self._lock:
            self._lock.notify()

    def _run(self) -> None:
        while (speech := self._next_speech()) is not None:
            try:
                self._speak_turn(speech)
            except FleetError as error:
                self._finish(speech, error)
            except Exception:  # The owner thread must outlive any one job.
                log.exception("espeak_turn_crashed", job=speech.job.id)
                self._finish(speech, InternalError("the engine met an error of its own; its log says more"))
        for speech in list(self._rotation):
            self._finish(speech, EngineLost(_SHUTTING_DOWN, retry_after=1))

    def _next_speech(self) -> _Speech | None:
        """The next job whose turn it is: round the rotation, past those whose readers are behind."""
        with self._lock:
            self._speaking = None
            while not self._closed:
                for _ in range(len(self._rotation)):
                    speech = self._rotation[0]
                    self._rotation.rotate(-1)
                    if speech.cancelled or speech.outbox.buffered < _BUFFER_LIMIT:
                        self._speaking, self._progress_at = speech, time.monotonic()
                        return speech
                self._lock.wait()
            return None

    def _speak_turn(self, speech: _Speech) -> None:
        if speech.cancelled:
            self._finish(speech, None)
            return
        self._pause(speech)
        if speech.turns:
            self._speak_segment(speech, cast(Turn, speech.turns.popleft()))
            self._pause(speech)
        if not speech.turns:
            self._finish(speech, None if speech.heard else NothingToSpeak(_NO_SOUND))

    def _speak_segment(self, speech: _Speech, turn: Turn) -> None:
        resampler = soxr.ResampleStream(speech.input_rate, SAMPLE_RATE, 1, dtype="float32")
        with closing(self._process.speak(turn)) as sound:
            for samples in sound:
                self._deliver(speech, resampler.resample_chunk(samples.astype(np.float32) / 32768))
        self._deliver(speech, resampler.resample_chunk(np.zeros(0, np.float32), last=True))

    def _pause(self, speech: _Speech) -> None:
        """Hand over the pauses that come next; before the first sound they wait for it."""
        while speech.turns and isinstance(pause := speech.turns[0], Pause):
            speech.turns.popleft()
            if speech.heard:
                speech.outbox.put(pause)
            else:
                speech.silence.append(pause)

    def _deliver(self, speech: _Speech, samples: Samples) -> None:
        """Hand sound to the job's reader; leading silence is held back until it is known to lead to something.

        A cancelled job's turn is read to its end and dropped here: that takes less than starting the process anew.
        """
        self._progress_at = time.monotonic()
        if speech.cancelled or not len(samples):
            return
        if not speech.heard:
            speech.silence.append(samples)
            if not np.any(samples):
                return
            speech.heard = True
            for waiting in speech.silence:
                speech.outbox.put(waiting)
            speech.silence.clear()
            return
        speech.outbox.put(samples)

    def _finish(self, speech: _Speech, error: FleetError | None) -> None:
        with self._lock:
            if speech in self._rotation:
                self._rotation.remove(speech)
        speech.outbox.end(error)
