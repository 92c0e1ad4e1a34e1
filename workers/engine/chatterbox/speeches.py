"""A job on its way through the engine: its segments, decoded side by side and delivered in order. No torch."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fleet.contract import SAMPLE_RATE
from workers.engine.base import Job, Pause, Samples
from workers.engine.chatterbox.sequence import Sequence
from workers.engine.chatterbox.sinks import Sink
from workers.engine.pauses import SENTENCE_PAUSE_S, passages
from workers.engine.segments import split

if TYPE_CHECKING:
    from workers.engine.chatterbox.conditionals import VoiceConditionals
    from workers.engine.chatterbox.streams import SpeechStream

SEGMENT_CHARS = 300
"""About 20 s of English: half of the 40 s that the model can speak at once."""

BUFFER_LIMIT = 20 * SAMPLE_RATE
"""Samples that may wait for a job's reader before the vocoder passes it over."""

SEGMENTS_AT_ONCE = 4
"""Segments of one job that are decoded side by side, so that a long text does not take a whole batch."""

_STAGGER_S = 2.0
"""How much later than a job's first segment each following one is due: it is heard only behind it."""

_FADE_OUT = SAMPLE_RATE // 100
"""Samples, 10 ms, in which a segment's end goes over into a pause."""


@dataclass(eq=False, slots=True)
class Segment:
    """A sentence-sized piece. `pause_s` of silence follow it; `read` tokens have been handed to its stream."""

    text: str
    pause_s: float
    sequence: Sequence | None = None
    stream: SpeechStream | None = None
    read: int = 0
    sound: deque[Samples] = field(default_factory=deque)
    done: bool = False

    @property
    def under_way(self) -> bool:
        return self.stream is not None and not self.done


def segments_of(text: str, *, language: str) -> list[Segment]:
    """The segments of a text, with its pauses; one without text is a pause alone. None where all are."""
    segments: list[Segment] = []
    for passage in passages(text):
        pieces = split(passage.text, language=language, limit=SEGMENT_CHARS)
        segments += [Segment(piece, SENTENCE_PAUSE_S) for piece in pieces[:-1]]
        segments.append(Segment(pieces[-1], passage.pause_s) if pieces else Segment("", passage.pause_s, done=True))
    return segments if any(segment.text for segment in segments) else []


@dataclass(eq=False, slots=True)
class Speech:
    """A job being spoken. Its fields belong to the engine's thread, but for `cancelled`, which anyone may set.

    `name` is its own even where two jobs have one id. `heard_until` is when whoever plays the sound as it comes runs
    out of it, by `time.monotonic`. `told` segments had ended at the last pause. With `whole`, each segment is made into
    sound at once when it is decoded.
    """

    name: str
    job: Job
    voice: VoiceConditionals
    segments: list[Segment]
    sink: Sink
    seed: int
    whole: bool = False
    begun_at: float = field(default_factory=time.monotonic)
    current: int = 0
    told: int = 0
    sounded: bool = False
    late: int = 0
    heard_until: float = 0.0
    pause_s: float = 0.0
    cancelled: bool = False

    @property
    def over(self) -> bool:
        return self.current == len(self.segments)

    @property
    def reader_behind(self) -> bool:
        return self.sink.buffered > BUFFER_LIMIT

    def due(self, place: int) -> float:
        """When a segment's first token is wanted."""
        return max(self.begun_at, self.heard_until) + _STAGGER_S * (place - self.current)

    def deadline(self, place: int) -> float:
        """When a segment's next sound is wanted."""
        return (self.heard_until or self.begun_at) + _STAGGER_S * (place - self.current)

    def next_to_begin(self) -> int | None:
        """The next segment that may be decoded now."""
        under_way = sum(segment.under_way for segment in self.segments)
        if under_way >= SEGMENTS_AT_ONCE or self.reader_behind:
            return None
        return next((n for n, s in enumerate(self.segments) if s.stream is None and not s.done), None)

    def receive(self, place: int, samples: Samples, *, last: bool) -> None:
        """Take in sound of a segment and pass on what can be heard now."""
        segment = self.segments[place]
        if last and segment.pause_s and len(samples) >= _FADE_OUT:
            samples = samples.copy()
            samples[-_FADE_OUT:] *= np.linspace(1, 0, _FADE_OUT, dtype=np.float32)
        if len(samples):
            segment.sound.append(samples)
        segment.done = segment.done or last
        self.pass_on()

    def pass_on(self) -> None:
        """Deliver the current segment's sound, and the following ones' as far as each is complete."""
        while not self.over:
            segment = self.segments[self.current]
            while segment.sound:
                self._deliver(segment.sound.popleft())
            if not segment.done:
                return
            if not segment.text:
                self.pause_s += segment.pause_s
            elif self.sounded:
                self.pause_s = max(self.pause_s, segment.pause_s)
            self.current += 1
        if self.sounded and self.segments[-1].pause_s:
            self._pause()

    def _deliver(self, samples: Samples) -> None:
        now = time.monotonic()
        self.late += int(self.sounded and now > self.heard_until)
        self.heard_until = max(now, self.heard_until) + len(samples) / SAMPLE_RATE
        self.sounded = True
        self._pause()
        self.sink.put(samples)

    def _pause(self) -> None:
        """Tell of the segments that have ended since the last pause, even where their writer wants none."""
        if self.current > self.told:
            self.heard_until += self.pause_s
            done = sum(bool(segment.text) for segment in self.segments[: self.current])
            self.sink.put(Pause(self.pause_s, done))
            self.pause_s, self.told = 0.0, self.current
