"""Encoded sound read back, and looked at."""

from __future__ import annotations

import io

import av
import numpy as np

from fleet.contract import SAMPLE_RATE, AudioFormat
from workers.engine.base import Samples

CONTAINERS = {
    AudioFormat.mp3: ("mp3", "mp3float"),
    AudioFormat.opus: ("ogg", "opus"),
    AudioFormat.aac: ("aac", "aac"),
    AudioFormat.flac: ("flac", "flac"),
    AudioFormat.wav: ("wav", "pcm_s16le"),
}
"""What FFmpeg recognises each format as: container and decoder."""


def decode(data: bytes, audio_format: AudioFormat) -> tuple[Samples, int]:
    """Samples and their rate in Hz; asserts that the bytes are what the format's name says."""
    if audio_format is AudioFormat.pcm:
        return np.divide(np.frombuffer(data, "<i2"), 32768, dtype=np.float32), SAMPLE_RATE
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.audio[0]
        found = container.format.name, stream.codec_context.name
        assert found == CONTAINERS[audio_format], found
        resampler = av.AudioResampler(format="flt", layout="mono")
        frames = [part.to_ndarray()[0] for frame in container.decode(stream) for part in resampler.resample(frame)]
        return np.concatenate(frames), int(stream.rate or 0)


def loudness(samples: Samples) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
