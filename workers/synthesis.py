"""The use case of a worker: a resolved request becomes encoded sound, piece by piece."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from fleet.contract import SAMPLE_RATE
from fleet.errors import EngineLost, FleetError, InternalError, NothingToSpeak
from workers.engine.base import Conditionals, Engine, Job, Pause, Sound
from workers.metrics import WorkerMetrics
from workers.readiness import ReadinessCheck
from workers.resolution import Speech
from workers.track import Track
from workers.voices.library import Library


@dataclass(slots=True)
class Measured:
    """Seconds: of the engine's own sound, of what is sent of it at the tempo that was asked for, and of the time that
    was taken without what a slow reader took. `segment_ends` says of each segment that is over where it ends in what
    is sent, which may not have reached that place yet.
    """

    audio_s: float = 0.0
    sent_s: float = 0.0
    busy_s: float = 0.0
    segment_ends: list[float] = field(default_factory=list)


class Synthesis:
    """Speaks through one engine and measures what it does."""

    def __init__(self, engine: Engine, library: Library, metrics: WorkerMetrics, readiness: ReadinessCheck) -> None:
        self._engine = engine
        self._library = library
        self._metrics = metrics
        self._readiness = readiness

    async def audio(self, speech: Speech, measured: Measured | None = None) -> AsyncGenerator[bytes, None]:
        """The encoded sound as it is made; closing the generator cancels the job. `measured` is filled in meanwhile.

        Yields nothing before the first sound exists, so an error raised until then can still be answered properly.
        Raises what `sound` raises.
        """
        measured = measured or Measured()
        track: Track | None = None
        async with aclosing(self.sound(speech, measured)) as sound:
            async for samples in sound:
                track = track or Track(speech)
                # Encoders hold the CPU for milliseconds: not on the event loop.
                began_at = time.monotonic()
                piece = await asyncio.to_thread(track.add, samples)
                measured.busy_s += time.monotonic() - began_at
                measured.sent_s = track.audio_s
                if isinstance(samples, Pause):
                    measured.segment_ends += [track.end_s] * (samples.done - len(measured.segment_ends))
                if piece:
                    yield piece
        if track is not None:
            if piece := await asyncio.to_thread(track.finish):
                yield piece
            measured.sent_s = track.audio_s

    def segments(self, speech: Speech) -> list[str]:
        """The pieces of the text that are spoken one by one, in order."""
        return self._engine.segments(self._job(speech, None))

    async def sound(self, speech: Speech, measured: Measured) -> AsyncGenerator[Sound, None]:
        """The engine's sound as it is made, counted; closing the generator cancels the job.

        Raises what the engine raises, with the request's own field named.
        """
        outcome = "cancelled"
        self._metrics.in_flight.inc()
        try:
            async with aclosing(self._spoken(speech, measured)) as pieces:
                async for piece in pieces:
                    yield piece
            outcome = "ok"
        except NothingToSpeak as error:
            outcome = error.code
            raise NothingToSpeak(error.message, param=speech.text_field) from None
        except FleetError as error:
            outcome = error.code
            if isinstance(error, EngineLost | InternalError):
                self._readiness.doubt()
            raise
        except Exception:
            outcome = InternalError.code
            raise
        finally:
            self._metrics.in_flight.dec()
            self._metrics.syntheses.labels(outcome).inc()

    async def _spoken(self, speech: Speech, measured: Measured) -> AsyncGenerator[Sound, None]:
        since = started_at = time.monotonic()
        job = self._job(speech, await self._library.conditionals(speech.voice))
        async with aclosing(self._engine.submit(job)) as sound:
            async for samples in sound:
                if not measured.audio_s and len(samples):
                    self._metrics.heard_first_sound(time.monotonic() - started_at)
                    self._readiness.proved()
                measured.audio_s += len(samples) / SAMPLE_RATE
                measured.busy_s += time.monotonic() - since  # without the time a slow reader keeps us waiting
                yield samples
                since = time.monotonic()
        self._metrics.finished(measured.busy_s, measured.audio_s)

    def _job(self, speech: Speech, conditionals: Conditionals | None) -> Job:
        return Job(
            id=uuid.uuid4().hex,
            text=speech.text,
            voice=speech.voice.id if speech.voice.builtin else self._engine.capabilities.voices[0].id,
            language=speech.language,
            conditionals=conditionals,
            parameters=speech.parameters,
        )
