"""The use case of a worker: a resolved request becomes encoded sound, piece by piece."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from fleet.contract import SAMPLE_RATE
from fleet.errors import EngineLost, FleetError, InternalError, NothingToSpeak
from workers.encoders import Encoder, encoder_for
from workers.engine.base import Engine, Job, Samples
from workers.metrics import WorkerMetrics
from workers.readiness import ReadinessCheck
from workers.resolution import Speech
from workers.tempo import Tempo
from workers.voices.library import Library


@dataclass(slots=True)
class Measured:
    """Seconds: of sound before its tempo was changed, and of the time it took without that a slow reader took."""

    audio_s: float = 0.0
    busy_s: float = 0.0


class Synthesis:
    """Speaks through one engine and measures what it does."""

    def __init__(self, engine: Engine, library: Library, metrics: WorkerMetrics, readiness: ReadinessCheck) -> None:
        self._engine = engine
        self._library = library
        self._metrics = metrics
        self._readiness = readiness

    async def audio(self, speech: Speech, measured: Measured | None = None) -> AsyncGenerator[bytes, None]:
        """The encoded sound as it is made; closing the generator cancels the job. `measured` is filled in at its end.

        Yields nothing before the first sound exists, so an error raised until then can still be answered properly.
        Raises what the engine raises, with the request's own field named.
        """
        outcome = "cancelled"
        self._metrics.in_flight.inc()
        try:
            async with aclosing(self._encoded(speech, measured or Measured())) as pieces:
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

    async def _encoded(self, speech: Speech, measured: Measured) -> AsyncGenerator[bytes, None]:
        started_at = time.monotonic()
        conditionals = await self._library.conditionals(speech.voice)
        job = Job(
            id=uuid.uuid4().hex,
            text=speech.text,
            voice=speech.voice.id if speech.voice.builtin else self._engine.capabilities.voices[0].id,
            language=speech.language,
            conditionals=conditionals,
            parameters=speech.parameters,
        )
        track: _Track | None = None
        heard = 0
        busy_s, since = 0.0, started_at  # Without the time a slow reader keeps us waiting.
        async with aclosing(self._engine.submit(job)) as sound:
            async for samples in sound:
                if track is None:
                    track = _Track(encoder_for(speech.audio_format), speech.speed)
                    self._metrics.heard_first_sound(time.monotonic() - started_at)
                    self._readiness.proved()
                heard += len(samples)
                # Encoders hold the CPU for milliseconds: not on the event loop.
                piece = await asyncio.to_thread(track.add, samples)
                busy_s += time.monotonic() - since
                if piece:
                    yield piece
                since = time.monotonic()
        if track is not None and (piece := await asyncio.to_thread(track.finish)):
            yield piece
        measured.audio_s, measured.busy_s = heard / SAMPLE_RATE, busy_s
        self._metrics.finished(busy_s, heard / SAMPLE_RATE)


class _Track:
    """An encoder with a tempo in front of it where one is asked for."""

    def __init__(self, encoder: Encoder, speed: float) -> None:
        self._encoder = encoder
        self._tempo = None if speed == 1 else Tempo(speed)

    def add(self, samples: Samples) -> bytes:
        if self._tempo is not None:
            samples = self._tempo.push(samples)
        return self._encoder.encode(samples) if len(samples) else b""

    def finish(self) -> bytes:
        if self._tempo is None:
            return self._encoder.finish()
        rest = self._tempo.finish()
        return (self._encoder.encode(rest) if len(rest) else b"") + self._encoder.finish()
