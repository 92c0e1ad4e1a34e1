"""Speed without a change of pitch."""

from __future__ import annotations

import numpy as np
import pytest

from fleet.contract import SAMPLE_RATE
from tests.workers.test_encoders import tone
from workers.engine.base import Samples
from workers.tempo import Tempo


def stretched(speed: float, samples: Samples, step: int) -> Samples:
    tempo = Tempo(speed)
    pieces = [tempo.push(samples[start : start + step]) for start in range(0, len(samples), step)]
    return np.concatenate([*pieces, tempo.finish()])


@pytest.mark.parametrize("speed", [0.25, 0.5, 0.8, 1.25, 2.0, 4.0])
def test_length_follows_the_speed_and_pitch_stays(speed: float) -> None:
    """Three seconds at a given speed last three over it, at the same frequency."""
    samples = stretched(speed, tone(3), 1440)
    assert len(samples) / SAMPLE_RATE == pytest.approx(3 / speed, rel=0.03)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(samples) == pytest.approx(440, abs=6)


@pytest.mark.parametrize("speed", [0.3, 1.7])
def test_partition_does_not_matter(speed: float) -> None:
    """The same samples in other pieces give the same sound."""
    assert np.array_equal(stretched(speed, tone(1), 1440), stretched(speed, tone(1), 5000))
