"""The jobs being spoken: from segments to sequences, from tokens to streams, from sound to whoever listens."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from fleet.errors import FleetError, NothingToSpeak, SynthesisFailed
from workers.engine.chatterbox.hops import FIRST_HOPS, LATER_HOPS, HopPlan
from workers.engine.chatterbox.options import SpeechOptions
from workers.engine.chatterbox.speeches import Segment, Speech
from workers.engine.chatterbox.streams import Chunk, SpeechStream
from workers.engine.chatterbox.token_encoder import VOCABULARY
from workers.engine.chatterbox.token_engine import TokenEngine
from workers.engine.chatterbox.vocoder import Vocoder

_SEED_STEP = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: seeds of a job's segments that lie far apart."""

_TOKENS_PER_SECOND = 25
_NOTHING = np.zeros(0, np.float32)


class SpeakingJobs:
    """Jobs between the token engine and the vocoder. The engine's thread changes it; any thread may count."""

    def __init__(self, tokens: TokenEngine, vocoder: Vocoder, options: SpeechOptions) -> None:
        self._tokens = tokens
        self._vocoder = vocoder
        self._max_tokens = options.max_tokens
        self._window = round(options.window_s * _TOKENS_PER_SECOND)
        self._lock = threading.Lock()
        self._speeches: dict[str, Speech] = {}
        self._streams: dict[str, tuple[Speech, int]] = {}
        self._late = 0

    def __len__(self) -> int:
        return len(self._speeches)

    def __iter__(self) -> Iterator[Speech]:
        with self._lock:
            return iter(list(self._speeches.values()))

    @property
    def late(self) -> int:
        """Pieces of sound that came after all sound before them could have been heard."""
        with self._lock:
            return self._late + sum(speech.late for speech in self._speeches.values())

    def add(self, speech: Speech) -> None:
        with self._lock:
            self._speeches[speech.name] = speech

    def go_on(self) -> None:
        """Let go of cancelled jobs and begin the segments there is room for."""
        for speech in self:
            if speech.cancelled:
                self.finish(speech, None)
            while speech.name in self._speeches and (place := speech.next_to_begin()) is not None:
                self._begin(speech, place)

    def set_deadlines(self) -> None:
        """Tell the vocoder who waits soonest, and who has more than he can hear."""
        for speech, place in self._streams.values():
            if (stream := speech.segments[place].stream) is not None:
                stream.paused = speech.reader_behind
                stream.deadline = speech.deadline(place)

    def fail(self, streams: Iterable[SpeechStream], error: FleetError) -> None:
        """End the jobs of these streams."""
        for stream in streams:
            if stream.id in self._streams:
                self.finish(self._streams[stream.id][0], error)

    def end_all(self, error: FleetError) -> None:
        """End every job without touching the device, which may be lost."""
        with self._lock:
            speeches = list(self._speeches.values())
            self._speeches.clear()
        for speech in speeches:
            speech.sink.end(error)

    def _begin(self, speech: Speech, place: int) -> None:
        segment = speech.segments[place]
        name = f"{speech.name}:{place}"
        seed = (speech.seed + place * _SEED_STEP) % 2**63
        try:
            segment.sequence = self._tokens.add(
                name,
                segment.text,
                voice=speech.voice.t3,
                parameters=replace(speech.job.parameters, seed=seed),
                max_tokens=self._max_tokens,
                due=speech.due(place),
            )
        except NothingToSpeak as error:
            speech.receive(place, _NOTHING, last=True)
            self._finish_if_over(speech, error)
            return
        except FleetError as error:
            self.finish(speech, error)
            return
        hops = () if speech.whole else LATER_HOPS if place else FIRST_HOPS
        segment.stream = SpeechStream(
            id=name,
            voice=speech.voice,
            seed=seed,
            quality=speech.job.parameters.quality,
            plan=HopPlan(hops, window=self._window),
            deadline=speech.deadline(place),
        )
        self._streams[name] = (speech, place)
        self._vocoder.add(segment.stream)

    def hand_over(self) -> None:
        for speech, place in list(self._streams.values()):
            segment = speech.segments[place]
            sequence, stream = segment.sequence, segment.stream
            if sequence is None or stream is None or stream.ended:
                continue
            if sequence.error is not None:
                self.finish(speech, sequence.error)
                continue
            stream.tokens += [token for token in sequence.tokens[segment.read :] if token < VOCABULARY]
            segment.read = len(sequence.tokens)
            stream.ended = sequence.finished
            if stream.ended and not stream.tokens:
                self._drop(segment)
                speech.receive(place, _NOTHING, last=True)
                self._finish_if_over(speech, SynthesisFailed("the model gave no speech for this text"))

    def deliver(self, chunk: Chunk) -> None:
        if chunk.stream.id not in self._streams:  # its job was ended by a chunk that arrived with this one
            return
        speech, place = self._streams[chunk.stream.id]
        if not np.isfinite(chunk.samples).all():
            self.finish(speech, SynthesisFailed("the model's sound for this text is not a number"))
            return
        speech.receive(place, chunk.samples, last=chunk.last)
        if chunk.last:
            del self._streams[chunk.stream.id]
        self._finish_if_over(speech, None)

    def _finish_if_over(self, speech: Speech, unheard: FleetError | None) -> None:
        if speech.over:
            self.finish(speech, None if speech.sounded else unheard)

    def finish(self, speech: Speech, error: FleetError | None) -> None:
        """End a job wherever it is: waiting, decoding, being vocoded or done."""
        with self._lock:
            if self._speeches.pop(speech.name, None) is None:
                return
            self._late += speech.late
        for segment in speech.segments:
            self._drop(segment)
        speech.sink.end(error)

    def _drop(self, segment: Segment) -> None:
        if segment.sequence is not None:
            self._tokens.cancel(segment.sequence.id)
        if segment.stream is not None:
            self._vocoder.remove(segment.stream)
            self._streams.pop(segment.stream.id, None)
