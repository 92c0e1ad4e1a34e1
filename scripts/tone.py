"""What a tone worker speaks, and how fast."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, replace
from functools import lru_cache

from fleet.contract import SAMPLE_RATE
from fleet.errors import InvalidValue

STAMP_BYTES = 8
"""Of each chunk, for the time at which it was written."""


@dataclass(frozen=True, slots=True)
class Tone:
    """What is spoken: whole chunks only. `pace` is in times real time, 0 for as fast as the socket takes it; a paced
    stream's chunk n is due `first_byte_ms` and n chunks' time after it got its place.
    """

    audio_s: float = 2.0
    chunk_ms: float = 200.0
    first_byte_ms: float = 0.0
    pace: float = 1.0

    @property
    def chunk_bytes(self) -> int:
        return 2 * max(STAMP_BYTES // 2, round(SAMPLE_RATE * self.chunk_ms / 1000))

    @property
    def chunks(self) -> int:
        return max(1, math.ceil(round(self.audio_s * 1000 / self.chunk_ms, 6)))

    @property
    def interval_s(self) -> float:
        return self.chunk_ms / 1000 / self.pace if self.pace else 0.0

    def changed(self, body: bytes) -> Tone:
        """As a request's body wants it; one that is not JSON wants nothing. Raises `InvalidValue`."""
        try:
            asked = json.loads(body)["tone"]
            given = {field.name: asked[field.name] for field in fields(self) if field.name in asked}
        except (ValueError, LookupError, TypeError, RecursionError):
            return self
        for name, value in given.items():
            least = 1 if name == "chunk_ms" else 0
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= 100_000:
                raise InvalidValue(f"tone.{name} is a number from {least} to 100000", param=f"tone.{name}")
        return replace(self, **given)


@lru_cache(maxsize=64)
def sound(size: int) -> bytes:
    """So many bytes of 500 Hz, without those that the stamp takes."""
    wave = (round(8000 * math.sin(2 * math.pi * 500 * n / SAMPLE_RATE)) for n in range(size // 2))
    return b"".join(sample.to_bytes(2, "little", signed=True) for sample in wave)[STAMP_BYTES:]
