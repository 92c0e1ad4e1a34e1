"""Voices and measured speakers, held against the sound they make."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fleet.errors import InvalidValue
from tests.workers.engine.test_espeak import TEXT, heard, job
from workers.engine.base import Conditionals, Recording, Samples
from workers.engine.espeak import EspeakEngine
from workers.engine.espeak.speakers import Speaker, measure


def tone(frequency_hz: float, seconds: float = 1.0, sample_rate: int = 24_000) -> Samples:
    """A harmonic tone, as a voice has."""
    t = np.arange(int(seconds * sample_rate)) / sample_rate
    wave = np.sum([np.sin(2 * np.pi * frequency_hz * k * t) / k for k in range(1, 9)], axis=0)
    return np.asarray(0.3 * wave, np.float32)


@pytest.mark.parametrize("frequency_hz", [80, 120, 180, 240, 320])
@pytest.mark.parametrize("sample_rate", [16_000, 24_000, 48_000])
def test_measured_pitch_is_that_of_the_recording(frequency_hz: int, sample_rate: int) -> None:
    """A tone of known frequency is measured to within 2 percent at any rate."""
    measured = measure([Recording(tone(frequency_hz, sample_rate=sample_rate), sample_rate)])
    assert measured.base_pitch_hz == pytest.approx(frequency_hz, rel=0.02)


@pytest.mark.parametrize("frequency_hz", [75, 95, 120, 145, 155, 185, 220, 260, 310])
async def test_cloned_speaker_speaks_at_the_recordings_pitch(engine: EspeakEngine, frequency_hz: int) -> None:
    """A recording's F0 becomes the base pitch: the speech made with it measures the same within 10 percent."""
    conditionals = engine.prepare([Recording(tone(frequency_hz), 24_000)])
    spoken = await heard(engine, job(TEXT * 2, conditionals=conditionals))
    assert measure([Recording(spoken, 24_000)]).base_pitch_hz == pytest.approx(frequency_hz, rel=0.10)


async def test_another_engines_voice_does_not_speak_as_ours(engine: EspeakEngine) -> None:
    """Conditionals of another kind are refused, and not spoken by whoever is the standard voice."""
    with pytest.raises(InvalidValue) as refused:
        await heard(engine, job(TEXT, conditionals=Conditionals()))
    assert refused.value.param == "conditionals"


async def test_own_voices_differ_audibly(engine: EspeakEngine) -> None:
    """Each built-in voice with a tone has a pitch of its own, in the order their names promise."""
    pitch = {}
    for voice in ("baritone", "tenor", "alto", "soprano"):
        pitch[voice] = measure([Recording(await heard(engine, job(TEXT, voice=voice)), 24_000)]).base_pitch_hz
    values = list(pitch.values())
    assert all(higher > 1.15 * lower for lower, higher in itertools.pairwise(values)), pitch


def test_several_recordings_are_measured_together() -> None:
    """The median is over the voiced frames of all of them."""
    measured = measure([Recording(tone(100, 3), 24_000), Recording(tone(200, 1), 24_000)])
    assert measured.base_pitch_hz == pytest.approx(100, rel=0.02)


@pytest.mark.parametrize(
    "samples",
    [np.zeros(24_000, np.float32), np.zeros(0, np.float32), tone(120, 0.05)],
    ids=["silence", "empty", "too short"],
)
def test_recording_without_a_voice_is_refused(samples: Samples) -> None:
    """What holds no voiced speech cannot be measured, and says so."""
    with pytest.raises(InvalidValue, match="no voiced speech"):
        measure([Recording(samples, 24_000)])


def test_pitch_beyond_reach_is_the_nearest_there_is() -> None:
    """Speakers below 67 Hz or above 328 Hz get the end of the range, never a value espeak refuses."""
    assert Speaker.at(20).pitch == 0
    assert Speaker.at(900).pitch == 99
