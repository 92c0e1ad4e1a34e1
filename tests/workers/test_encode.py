"""Sound that was spoken before, as a file of another format."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import httpx2
import numpy as np
import pytest
import soundfile

from fleet.contract import SAMPLE_RATE, AudioFormat
from tests.running import RunningFleet
from tests.sound import decode
from tests.tools import require_tool

PCM = {"content-type": "audio/pcm"}


@pytest.fixture(params=["worker", "balancer"])
def side(request: pytest.FixtureRequest, http: httpx2.Client, worker_http: httpx2.Client) -> httpx2.Client:
    return http if request.param == "balancer" else worker_http


@pytest.fixture(scope="module")
def spoken(worker_http: httpx2.Client) -> bytes:
    """Some seconds of bare samples."""
    body = {"text": "The quick brown fox jumps over the lazy dog. " * 2, "format": "pcm", "seed": 1}
    return worker_http.post("/synthesize", json=body).content


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_every_format_holds_the_sound(side: httpx2.Client, spoken: bytes, audio_format: AudioFormat) -> None:
    """The file is as long as the samples, within a codec's padding, and lossless ones hold them unchanged."""
    answer = side.post("/encode", params={"format": audio_format}, content=spoken, headers=PCM)
    assert (answer.status_code, answer.headers["content-type"]) == (200, audio_format.media_type)
    samples, rate = decode(answer.content, audio_format)
    given = np.frombuffer(spoken, "<i2").astype(np.float32) / 32768
    assert len(samples) / rate == pytest.approx(len(given) / SAMPLE_RATE, abs=0.1)
    if audio_format in (AudioFormat.wav, AudioFormat.flac, AudioFormat.pcm):
        assert np.array_equal(samples, given)


@pytest.mark.parametrize("audio_format", [AudioFormat.wav, AudioFormat.flac])
def test_headers_tell_the_length(worker_http: httpx2.Client, spoken: bytes, audio_format: AudioFormat) -> None:
    """Unlike a stream's, a file's header says how many samples follow."""
    answer = worker_http.post("/encode", params={"format": audio_format}, content=spoken, headers=PCM)
    assert soundfile.info(io.BytesIO(answer.content)).frames == len(spoken) // 2


def test_a_player_knows_how_long_an_mp3_is(worker_http: httpx2.Client, spoken: bytes, tmp_path: Path) -> None:
    """Its first frame tells the number of frames, so that nothing is estimated from the bit rate."""
    answer = worker_http.post("/encode", params={"format": "mp3"}, content=spoken, headers=PCM)
    assert b"Info" in answer.content[:200] or b"Xing" in answer.content[:200]
    (tmp_path / "speech.mp3").write_bytes(answer.content)
    command = [require_tool("ffprobe"), "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
    told = subprocess.run([*command, tmp_path / "speech.mp3"], capture_output=True, check=True).stdout
    assert float(told) == pytest.approx(len(spoken) / 2 / SAMPLE_RATE, abs=0.06)


def test_long_sound_is_encoded_too(fleet: RunningFleet) -> None:
    """Forty megabytes, more than any other body may hold, pass the balancer and come back whole."""
    tone = (8000 * np.sin(np.arange(20_000_000) / 20)).astype("<i2").tobytes()
    with httpx2.Client(base_url=fleet.url, timeout=120, trust_env=False) as client:
        answer = client.post("/encode", params={"format": "flac"}, content=tone, headers=PCM)
    assert answer.status_code == 200
    assert soundfile.info(io.BytesIO(answer.content)).frames == 20_000_000


@pytest.mark.parametrize(
    ("query", "content", "kind", "refused"),
    [
        ("format=mp3", b"", "audio/pcm", (422, "body")),
        ("format=mp3", b"abc", "audio/pcm", (422, "body")),
        ("format=zip", b"abcd", "audio/pcm", (422, "format")),
        ("", b"abcd", "audio/pcm", (422, "format")),
        ("format=mp3", b"abcd", "audio/wav", (415, "content-type")),
        ("format=mp3", b"{}", "application/json", (415, "content-type")),
    ],
)
def test_bad_input_is_told(
    side: httpx2.Client, query: str, content: bytes, kind: str, refused: tuple[int, str]
) -> None:
    """What cannot be encoded is refused by its name."""
    answer = side.post(f"/encode?{query}", content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["param"]) == refused


def test_too_much_is_refused(side: httpx2.Client) -> None:
    """While it arrives; nothing of it is kept."""
    answer = side.post("/encode?format=mp3", content=(bytes(2**20) for _ in range(60)), headers=PCM)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
