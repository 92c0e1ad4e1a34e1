"""One file of speech from an engine's sound on: seams, loudness, tempo, then the encoder."""

from __future__ import annotations

import numpy as np

from fleet.contract import SAMPLE_RATE
from workers.encoders import encoder_for
from workers.engine.base import Pause, Samples, Sound
from workers.loudness import Leveller
from workers.resolution import Speech
from workers.seams import Seams
from workers.tempo import Tempo


class Track:
    """What a speech's sound becomes on its way to the caller.

    `empty` holds until there is any sound, encoded or yet to be.
    """

    def __init__(self, speech: Speech) -> None:
        self._seams = Seams()
        self._leveller = None if speech.loudness is None else Leveller(speech.loudness)
        self._encoder = encoder_for(speech.audio_format)
        self._speed = speech.speed
        self._tempo = None if speech.speed == 1 else Tempo(speech.speed)
        self._spoken = self._made = 0
        self.empty = True

    @property
    def audio_s(self) -> float:
        """The seconds that are encoded."""
        return self._made / SAMPLE_RATE

    @property
    def end_s(self) -> float:
        """Where in the file what has been added ends, in seconds; a change of tempo holds some of it back."""
        return self._spoken / self._speed / SAMPLE_RATE

    def add(self, sound: Sound) -> bytes:
        """What can be sent after this sound."""
        if isinstance(sound, Pause):
            return self._ended(self._seams.finish()) + self._encoded(np.zeros(len(sound), np.float32))
        return self._encoded(self._levelled(self._seams.add(sound)))

    def finish(self) -> bytes:
        """The rest of the file."""
        rest = self._ended(self._seams.finish())
        if self._tempo is not None:
            rest += self._counted(self._tempo.finish())
        return rest + self._encoder.finish()

    def _ended(self, samples: Samples) -> bytes:
        """The end of a segment."""
        rest = self._encoded(self._levelled(samples))
        return rest if self._leveller is None else rest + self._encoded(self._leveller.end_segment())

    def _levelled(self, samples: Samples) -> Samples:
        return samples if self._leveller is None else self._leveller.add(samples)

    def _encoded(self, samples: Samples) -> bytes:
        if not len(samples):
            return b""
        self.empty = False
        self._spoken += len(samples)
        return self._counted(samples if self._tempo is None else self._tempo.push(samples))

    def _counted(self, samples: Samples) -> bytes:
        self._made += len(samples)
        return self._encoder.encode(samples) if len(samples) else b""
