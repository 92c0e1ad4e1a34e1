"""Sizes put into a finished WAV file."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest

from fleet.contract import AudioFormat
from fleet.wav import complete_sizes
from tests.workers.test_encoders import encoded, tone


def test_streamed_file_becomes_a_proper_one(tmp_path: Path) -> None:
    """The standard library reads the exact number of frames afterwards, and a second call changes nothing."""
    path = tmp_path / "x.wav"
    path.write_bytes(encoded(AudioFormat.wav, tone(1)))
    complete_sizes(path)
    with wave.open(str(path)) as file:
        assert (file.getnframes(), file.getframerate(), file.getnchannels()) == (24_000, 24_000, 1)
    before = path.read_bytes()
    complete_sizes(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"RIFF", b"RIFF\xff\xff\xff\xffWAVE", b"RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\xff", b"fLaC" * 9]
)
def test_other_files_are_left_alone_or_ended_well(tmp_path: Path, content: bytes) -> None:
    """A truncated or foreign file raises nothing and keeps its length."""
    path = tmp_path / "x.wav"
    path.write_bytes(content)
    complete_sizes(path)
    assert path.stat().st_size == len(content)
