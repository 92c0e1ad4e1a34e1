"""The ends and joins of speech: silence trimmed within limits, edges without a click."""

from __future__ import annotations

import numpy as np

from fleet.contract import SAMPLE_RATE
from workers.engine.base import Samples

_FRAME = SAMPLE_RATE // 100
"""Samples, 10 ms: what is judged to be sound or silence."""

_SILENCE, _SILENCE_SHARE = 2.5e-3, 1e-2
"""RMS below which a frame is silence: -52 dBFS, or 40 dB below the loudest frame so far, whichever is more."""

_LEAD, _TAIL = SAMPLE_RATE // 20, SAMPLE_RATE // 10
"""Samples, 50 and 100 ms, of quiet that stay before the first sound and behind the last: breath, and what fades."""

_MOST_HELD = 3 * SAMPLE_RATE
"""Quiet that waits to be known for the end; where there is more, its beginning is passed on."""

_FADE_IN, _FADE_OUT = SAMPLE_RATE // 200, SAMPLE_RATE // 50
"""Samples, 5 and 20 ms, in which an edge rises and falls."""

_NOTHING = np.zeros(0, np.float32)


class Seams:
    """A speech's samples on their way to the encoder, a segment at a time. Float32 at 24 kHz throughout."""

    def __init__(self) -> None:
        self._held = _NOTHING  # quiet, the last of the sound, and a frame that is not whole
        self._judged = 0  # samples of `_held` in frames that were judged
        self._quiet_from = 0  # where in `_held` the last sounding frame ends
        self._loudest = 0.0
        self._begun = False  # this segment has sounded
        self._tail = 0  # quiet samples at the end of what has been passed on

    def add(self, samples: Samples) -> Samples:
        """What can be heard after these samples: the sound but for its last 20 ms, which the segment may end with."""
        self._held = np.concatenate([self._held, samples])
        sounding = self._judge()
        if len(sounding):
            self._quiet_from, self._tail = (int(sounding[-1]) + 1) * _FRAME, 0
            if not self._begun:
                self._begin(max(0, int(sounding[0]) * _FRAME - _LEAD))
        if not self._begun:
            self._pass_on((self._judged - _LEAD) // _FRAME * _FRAME)
            return _NOTHING
        surplus = max(0, self._judged - self._quiet_from - _MOST_HELD)
        self._tail += surplus
        return self._pass_on(min(self._quiet_from + surplus, self._judged - _FADE_OUT))

    def finish(self) -> Samples:
        """The segment's end: a little of the quiet behind its last sound, faded out."""
        begun, held = self._begun, self._held
        end = held[: self._quiet_from + max(_FADE_OUT, _TAIL - self._tail)].copy()
        self._held, self._judged, self._quiet_from, self._begun, self._tail = _NOTHING, 0, 0, False, 0
        if not begun:
            return _NOTHING
        fall = min(_FADE_OUT, len(end))
        end[len(end) - fall :] *= np.linspace(1, 0, fall, dtype=np.float32)
        return end

    def _judge(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Which frames of `_held` that had not been judged are sound, by their place in it."""
        whole = len(self._held) // _FRAME * _FRAME
        frames = self._held[self._judged : whole].reshape(-1, _FRAME)
        place, self._judged = self._judged // _FRAME, whole
        if not len(frames):
            return np.zeros(0, np.int64)
        levels = np.sqrt(np.mean(np.square(frames), axis=1))
        loudest = np.maximum.accumulate(np.maximum(levels, self._loudest))
        self._loudest = float(loudest[-1])
        return place + np.flatnonzero(levels > np.maximum(_SILENCE, loudest * _SILENCE_SHARE))

    def _begin(self, start: int) -> None:
        self._pass_on(start)
        self._begun, rise = True, min(_FADE_IN, len(self._held))
        self._held[:rise] *= np.linspace(0, 1, rise, endpoint=False, dtype=np.float32)

    def _pass_on(self, count: int) -> Samples:
        count = max(0, count)
        passed, self._held = self._held[:count], self._held[count:].copy()
        self._judged -= count
        self._quiet_from = max(0, self._quiet_from - count)
        return passed
