"""Segments of a speech made equally loud, by ITU-R BS.1770 (pyloudnorm, an optional package)."""

from __future__ import annotations

import importlib.util

import numpy as np

from fleet.contract import SAMPLE_RATE
from workers.engine.base import Samples

_HELD = 3 * SAMPLE_RATE
"""Samples of a segment that are measured before any is passed on; a shorter one is measured whole."""

_SHORTEST = SAMPLE_RATE * 4 // 10
"""Samples, 400 ms: the block that BS.1770 measures. What is shorter takes the gain of what was before."""

_MOST_GAIN_DB = 12.0
_PEAK = 10 ** (-1 / 20)
"""-1 dBFS: no gain takes a sample beyond it."""

_NOTHING = np.zeros(0, np.float32)


def can_measure() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("pyloudnorm") is not None


class Leveller:
    """Brings each segment to `target` LUFS by at most 12 dB. It waits for 3 s of a segment, or for its end."""

    def __init__(self, target: float) -> None:
        from pyloudnorm import Meter  # noqa: PLC0415 - optional, and it imports scipy

        self._target = target
        self._meter = Meter(SAMPLE_RATE)
        self._held = _NOTHING
        self._gain = 1.0
        self._measured = False

    def add(self, samples: Samples) -> Samples:
        """What can be heard after these samples."""
        if self._measured:
            return self._levelled(samples)
        self._held = np.concatenate([self._held, samples])
        return _NOTHING if len(self._held) < _HELD else self._measure()

    def end_segment(self) -> Samples:
        """The rest of the segment."""
        rest = _NOTHING if self._measured else self._measure()
        self._measured = False
        return rest

    def _measure(self) -> Samples:
        held, self._held, self._measured = self._held, _NOTHING, True
        if len(held) >= _SHORTEST:
            loudness = float(self._meter.integrated_loudness(held))
            if np.isfinite(loudness):  # silence has none
                most = _MOST_GAIN_DB
                self._gain = 10 ** (float(np.clip(self._target - loudness, -most, most)) / 20)
        return self._levelled(held)

    def _levelled(self, samples: Samples) -> Samples:
        """With the segment's gain, which falls within these samples, and stays so, where a peak asks for it."""
        if not len(samples):
            return samples
        gain, peak = self._gain, float(np.max(np.abs(samples)))
        if gain > 1 and peak * gain > _PEAK:
            self._gain = max(1.0, _PEAK / peak)
        ramp = np.full(len(samples), self._gain, np.float32)
        fall = min(len(samples), SAMPLE_RATE // 200)
        ramp[:fall] = np.linspace(gain, self._gain, fall, dtype=np.float32)
        levelled: Samples = np.clip(samples * ramp, -1, 1).astype(np.float32)
        return levelled
