"""Voices for tests: drafts, records of recordings that need no files, and recordings that sound like speech."""

from __future__ import annotations

import hashlib
import io
import subprocess
from pathlib import Path

import numpy as np
import soundfile

from fleet.library_contract import RecordingReport
from workers.engine.base import Samples
from workers.voices.records import SampleRecord, VoiceDraft

REPORT = RecordingReport(
    duration_s=3,
    sample_rate=24_000,
    channels=1,
    loudness_lufs=-23,
    peak_db=-3,
    clipped=0,
    silent=0.1,
    noise_db=-60,
    notes=("a note",),
)


def sample(number: int = 0, size: int = 10) -> SampleRecord:
    """A recording that exists on paper only."""
    digest = hashlib.sha256(f"recording {number}".encode()).hexdigest()
    copy = hashlib.sha256(f"copy {number}".encode()).hexdigest()
    return SampleRecord("a.wav", "audio/wav", digest, size, copy, 2 * size, REPORT)


def draft(name: str, *aliases: str, default: bool = False) -> VoiceDraft:
    return VoiceDraft(name, aliases=aliases, default=default)


def speechlike(pitch_hz: float = 120.0, seconds: float = 4.0, rate: int = 24_000) -> Samples:
    """Syllables of a voiced sound with its overtones, four a second, with pauses between them."""
    time = np.arange(round(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * pitch_hz * n * time) / n for n in range(1, 12))
    syllables = np.clip(4 * np.sin(2 * np.pi * 2 * time) ** 2 - 1, 0, 1)
    noise = np.random.default_rng(0).standard_normal(len(time)) * 1e-3
    return np.asarray(0.25 * tone * syllables + noise, np.float32)


def wav(samples: Samples, rate: int = 24_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def voice_file(pitch_hz: float = 120.0, seconds: float = 4.0) -> bytes:
    """A WAV file that a voice can be made of."""
    return wav(speechlike(pitch_hz, seconds))


def encoded(samples: Samples, ending: str, folder: Path) -> bytes:
    """The same sound as FFmpeg writes it for a file name's ending."""
    source, target = folder / "source.wav", folder / f"target{ending}"
    source.write_bytes(wav(samples))
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", source, "-ar", "48000", "-ac", "2", target], check=True)
    return target.read_bytes()
