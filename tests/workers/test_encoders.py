"""Encoders: what they write is what they say, and it leaves while it is made."""

from __future__ import annotations

import gc

import numpy as np
import psutil
import pytest

from fleet.contract import SAMPLE_RATE, AudioFormat
from tests.sound import decode, loudness
from workers.encoders import encoder_for, to_int16
from workers.engine.base import Samples


def tone(seconds: float) -> Samples:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def encoded(audio_format: AudioFormat, samples: Samples, step: int = 1440) -> bytes:
    encoder = encoder_for(audio_format)
    pieces = [encoder.encode(samples[start : start + step]) for start in range(0, len(samples), step)]
    return b"".join([*pieces, encoder.finish()])


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_sound_survives_its_format(audio_format: AudioFormat) -> None:
    """Two seconds of a tone come back as two seconds of that tone, within the codec's own padding."""
    samples, rate = decode(encoded(audio_format, tone(2)), audio_format)
    assert rate in (SAMPLE_RATE, 48_000)
    assert len(samples) / rate == pytest.approx(2, abs=0.1)
    assert loudness(samples) == pytest.approx(loudness(tone(2)), rel=0.1)
    spectrum = np.abs(np.fft.rfft(samples))
    assert np.argmax(spectrum) * rate / len(samples) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_sound_leaves_while_it_is_made(audio_format: AudioFormat) -> None:
    """After a second of input, most of a second has been written in every format."""
    encoder = encoder_for(audio_format)
    early = b"".join(encoder.encode(tone(0.06)) for _ in range(17))
    whole = early + encoder.finish()
    assert len(early) > 0.75 * len(whole)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_partition_does_not_matter(audio_format: AudioFormat) -> None:
    """The same samples in other pieces give the same bytes, so chunking never shows in the output."""
    assert encoded(audio_format, tone(1), 1440) == encoded(audio_format, tone(1), 7001)


def test_lossless_formats_are_exact() -> None:
    """WAV, FLAC and PCM carry the 16-bit samples unchanged."""
    expected = to_int16(tone(1)).astype(np.float32) / 32768
    for audio_format in (AudioFormat.wav, AudioFormat.flac, AudioFormat.pcm):
        assert np.array_equal(decode(encoded(audio_format, tone(1)), audio_format)[0], expected)


def test_what_lies_outside_the_range_is_clipped_not_wrapped() -> None:
    """Samples beyond ±1 become the loudest value of their sign."""
    assert to_int16(np.array([-3, -1, 0, 1, 3], np.float32)).tolist() == [-32768, -32767, 0, 32767, 32767]


def test_encoders_that_are_left_take_no_memory() -> None:
    """Callers who leave in mid-stream leave nothing behind that has to be looked for."""
    process, second = psutil.Process(), tone(1)
    encoder_for(AudioFormat.flac).encode(second)
    before = process.memory_info().rss
    gc.disable()
    try:
        for _ in range(100):
            encoder_for(AudioFormat.flac).encode(second)
        assert process.memory_info().rss - before < 30 * 2**20
    finally:
        gc.enable()
