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

_FALL = SAMPLE_RATE // 200
"""Samples, 5 ms, within which a gain falls before the peak that asks for it: so many wait for what comes next."""

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
        self._held = _NOTHING  # with its gain once the segment is measured
        self._gain = 1.0
        self._measured = False

    def add(self, samples: Samples) -> Samples:
        """What can be heard after these samples."""
        if not self._measured:
            self._held = np.concatenate([self._held, samples])
            if len(self._held) < _HELD:
                return _NOTHING
            self._measure()
            samples = _NOTHING
        return self._levelled(samples)

    def end_segment(self) -> Samples:
        """The rest of the segment."""
        if not self._measured:
            self._measure()
        rest, self._held, self._measured = self._held, _NOTHING, False
        return rest

    def _measure(self) -> None:
        held, self._measured = self._held, True
        if len(held) >= _SHORTEST:
            loudness = float(self._meter.integrated_loudness(held))
            if np.isfinite(loudness):  # silence has none
                most = _MOST_GAIN_DB
                self._gain = 10 ** (float(np.clip(self._target - loudness, -most, most)) / 20)
        self._gain = self._bearable(held)
        self._held = held * np.float32(self._gain)

    def _levelled(self, samples: Samples) -> Samples:
        """All but the last 5 ms, with the segment's gain, which falls before a peak that asks for it, and stays so."""
        gain = self._bearable(samples)
        if gain != self._gain:
            self._held *= np.linspace(1, gain / self._gain, len(self._held), dtype=np.float32)
            self._gain = gain
        waiting = np.concatenate([self._held, samples * np.float32(gain)])
        self._held = waiting[-_FALL:].copy()
        return waiting[:-_FALL]

    def _bearable(self, samples: Samples) -> float:
        """The gain, or less of it where it would take one of these samples beyond the peak."""
        peak = float(np.max(np.abs(samples), initial=0))
        return max(1.0, _PEAK / peak) if self._gain > 1 and peak * self._gain > _PEAK else self._gain
