"""One file of speech from its samples on: tempo, then the encoder."""

from __future__ import annotations

from fleet.contract import SAMPLE_RATE
from workers.encoders import encoder_for
from workers.engine.base import Samples
from workers.resolution import Speech
from workers.tempo import Tempo


class Track:
    """What a speech's samples become on their way to the caller. `audio_s` counts seconds before the tempo changes."""

    def __init__(self, speech: Speech) -> None:
        self._encoder = encoder_for(speech.audio_format)
        self._tempo = None if speech.speed == 1 else Tempo(speech.speed)
        self.audio_s = 0.0

    def add(self, samples: Samples) -> bytes:
        """What can be sent after these samples."""
        self.audio_s += len(samples) / SAMPLE_RATE
        if self._tempo is not None:
            samples = self._tempo.push(samples)
        return self._encoder.encode(samples) if len(samples) else b""

    def finish(self) -> bytes:
        """The rest of the file."""
        rest = b""
        if self._tempo is not None and len(samples := self._tempo.finish()):
            rest = self._encoder.encode(samples)
        return rest + self._encoder.finish()
