"""Segments made equally loud, measured by an independent meter: FFmpeg's ebur128."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.contract import SAMPLE_RATE, AudioFormat
from tests.running import RunningWorker, free_port
from tests.sound import decode
from tests.tools import require_tool
from workers.engine.base import Samples
from workers.loudness import Leveller

PEAK = 10 ** (-1 / 20)
"""-1 dBFS."""


def lufs(samples: Samples, folder: Path) -> float:
    """Integrated loudness, by FFmpeg."""
    path = folder / "measured.wav"
    soundfile.write(path, samples, SAMPLE_RATE, subtype="FLOAT")
    command = [require_tool("ffmpeg"), "-hide_banner", "-i", str(path), "-af", "ebur128", "-f", "null", "-"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return float(re.findall(r"I:\s+(-?[\d.]+) LUFS", said)[-1])


def speech(seconds: float, level: float) -> Samples:
    """Noise that rises and falls as syllables do."""
    at = np.arange(round(seconds * SAMPLE_RATE))
    noise = np.random.default_rng(3).standard_normal(len(at))
    return (level * noise * (0.6 + 0.4 * np.sin(at * 2 * np.pi * 4 / SAMPLE_RATE))).astype(np.float32)


@pytest.mark.parametrize("seconds", [1.0, 2.5, 8.0])
def test_loud_and_quiet_segments_become_equal(tmp_path: Path, seconds: float) -> None:
    """Within one LU of the target, in whatever pieces they come."""
    leveller, found = Leveller(-23), []
    for level in (0.02, 0.1, 0.2):
        segment = speech(seconds, level)
        parts = [leveller.add(segment[start : start + 1000]) for start in range(0, len(segment), 1000)]
        heard = np.concatenate([*parts, leveller.end_segment()])
        assert len(heard) == len(segment)
        found.append(lufs(heard, tmp_path))
    assert found == pytest.approx([-23] * 3, abs=1)


def test_gain_is_bounded_and_never_clips() -> None:
    """At most 12 dB, and none where a peak would go beyond -1 dBFS."""
    leveller = Leveller(-10)
    quiet, peak = speech(4, 0.001), speech(2, 0.2)
    heard = np.concatenate([leveller.add(quiet), leveller.end_segment()])
    assert np.abs(heard).max() / np.abs(quiet).max() == pytest.approx(10 ** (12 / 20), rel=0.01)
    heard = np.concatenate([leveller.add(quiet), leveller.add(peak), leveller.end_segment()])
    assert np.abs(heard).max() <= max(PEAK, np.abs(peak).max()) * 1.0001


PIECES = st.lists(st.tuples(st.integers(0, 5_000), st.sampled_from([1e-4, 0.01, 0.3, 0.9, 1.0])), max_size=12)


@given(pieces=PIECES, gap=st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_no_gain_takes_a_sample_beyond_the_peak(pieces: list[tuple[int, float]], gap: int) -> None:
    """Whenever it comes, and in however small a piece; and no gain ever leaps."""
    leveller = Leveller(-10)
    parts = [np.where(np.arange(4 * SAMPLE_RATE) // 12 % 2, 0.002, -0.002).astype(np.float32)]
    for length, loudest in pieces:
        piece = np.full(length, 0.002, np.float32)
        piece[gap : gap + 20] = loudest
        parts.append(piece)
    heard = np.concatenate([*(leveller.add(piece) for piece in parts), leveller.end_segment()])
    before = np.concatenate(parts)
    assert len(heard) == len(before)
    assert (np.abs(heard) <= np.maximum(PEAK, np.abs(before)) * 1.0001).all()
    gains = np.abs(heard) / np.abs(before)
    assert gains.min() >= 0.999
    assert gains.max() <= 10 ** (12 / 20) * 1.001
    assert np.abs(np.diff(gains)).max(initial=0) < 0.1


def test_silence_and_scraps_are_left_alone() -> None:
    """Neither has a loudness of its own."""
    leveller = Leveller(-23)
    for samples in (np.zeros(SAMPLE_RATE, np.float32), speech(0.1, 0.1), np.zeros(0, np.float32)):
        heard = np.concatenate([leveller.add(samples), leveller.end_segment()])
        np.testing.assert_allclose(heard, samples, atol=1e-6)


def test_server_may_have_one_of_its_own(tmp_path: Path) -> None:
    """`CHATTERBOX_LOUDNESS` holds where a request says nothing; a request may say something else."""
    found = []
    with RunningWorker(free_port(0), loudness=-26) as worker:
        for asked in ({}, {"loudness": -18}):
            body = {"text": "The quick brown fox jumps over the lazy dog. " * 3, **asked}
            answer = httpx2.post(f"{worker.url}/synthesize", json=body, trust_env=False, timeout=20)
            found.append(lufs(decode(answer.content, AudioFormat.wav)[0], tmp_path))
    assert found == pytest.approx([-26, -18], abs=1.5)


def test_server_that_cannot_measure_does_not_promise_it() -> None:
    """Without the package, a worker that is to keep a loudness ends with one line."""
    hidden = "import sys; sys.modules['pyloudnorm'] = None; import workers.__main__ as w; w.main()"
    environment = {**os.environ, "CHATTERBOX_LOUDNESS": "-20", "CHATTERBOX_PORT": str(free_port(0))}
    ended = subprocess.run(
        [sys.executable, "-c", hidden], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, "CHATTERBOX_LOUDNESS needs the package pyloudnorm" in ended.stderr) == (1, True)


def test_request_asks_for_it(http: httpx2.Client, tmp_path: Path) -> None:
    """By `loudness`, in LUFS; two voices of different loudness come out alike."""
    found = []
    for voice in ("alto", "whisper"):
        body = {"text": "The quick brown fox jumps over the lazy dog. " * 3, "voice": voice, "loudness": -20}
        answer = http.post("/synthesize", json=body)
        assert "loudness" not in answer.headers.get("x-ignored-parameters", "")
        found.append(lufs(decode(answer.content, AudioFormat.wav)[0], tmp_path))
    assert found == pytest.approx([-20, -20], abs=1.5)
    for wrong in (0, -80, "loud"):
        refused = http.post("/synthesize", json={"text": "Hello.", "loudness": wrong})
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, "loudness")
