"""Faster or slower speech at the same pitch, by FFmpeg's `atempo` filter (WSOLA) through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import av.filter
import numpy as np
from av.audio.frame import AudioFrame

from fleet.contract import SAMPLE_RATE
from workers.engine.base import Samples

_ATEMPO_MIN = 0.5
"""The slowest one `atempo` goes; two in a row reach a quarter."""


class Tempo:
    """A stretch of the time axis by `1 / speed`, piece by piece."""

    def __init__(self, speed: float) -> None:
        factors = [speed] if speed >= _ATEMPO_MIN else [_ATEMPO_MIN, speed / _ATEMPO_MIN]
        self._graph = av.filter.Graph()
        nodes = [
            self._graph.add_abuffer(
                sample_rate=SAMPLE_RATE, format="flt", layout="mono", time_base=Fraction(1, SAMPLE_RATE)
            ),
            *(self._graph.add("atempo", f"{factor:.6f}") for factor in factors),
            self._graph.add("abuffersink"),
        ]
        self._graph.link_nodes(*nodes).configure()
        self._position = 0

    def push(self, samples: Samples) -> Samples:
        """What comes out after these samples; may be empty."""
        frame = AudioFrame.from_ndarray(samples[np.newaxis, :], format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.time_base = Fraction(1, SAMPLE_RATE)
        frame.pts = self._position
        self._position += len(samples)
        self._graph.push(frame)
        return self._pull()

    def finish(self) -> Samples:
        """The rest."""
        self._graph.push(None)
        return self._pull()

    def _pull(self) -> Samples:
        return np.concatenate([np.zeros(0, np.float32), *self._frames()])

    def _frames(self) -> Iterator[Samples]:
        while True:
            try:
                yield self._graph.pull().to_ndarray()[0]
            except (BlockingIOError, EOFError):
                return
