"""Sound that was spoken before, as a file of another format."""

from __future__ import annotations

import asyncio
import gzip
import io
import resource
import socket
import subprocess
from pathlib import Path

import httpx2
import numpy as np
import psutil
import pytest
import soundfile

from fleet.bodies import Body
from fleet.contract import SAMPLE_RATE, AudioFormat
from fleet.errors import Overloaded
from tests.running import RunningFleet, RunningWorker, free_port, wait_for
from tests.sound import decode
from tests.tools import require_tool
from workers.encoding import Encoding

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
        ("format=mp3", b"abcd", "", (415, "content-type")),
        ("format=mp3", b"abcd", "audio/pcm; rate=16000", (415, "content-type")),
        ("format=mp3", b"abcd", "audio/pcm;rate=24000;channels=2", (415, "content-type")),
    ],
)
def test_bad_input_is_told(
    side: httpx2.Client, query: str, content: bytes, kind: str, refused: tuple[int, str]
) -> None:
    """What cannot be encoded is refused by its name."""
    answer = side.post(f"/encode?{query}", content=content, headers={"content-type": kind})
    assert (answer.status_code, answer.json()["error"]["param"]) == refused


def test_a_compressed_body_is_told(side: httpx2.Client) -> None:
    """It is not taken for samples, which it would be noise as; a body that is said to be plain is."""
    packed = gzip.compress(bytes(4800))
    answer = side.post("/encode?format=mp3", content=packed, headers={**PCM, "content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (415, "content-encoding")
    plain = side.post("/encode?format=wav", content=bytes(4800), headers={**PCM, "content-encoding": "Identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_one_sample_is_sound(worker_http: httpx2.Client, audio_format: AudioFormat) -> None:
    """However little there is, it becomes a file that can be read."""
    kind = {"content-type": "Audio/PCM; rate=24000; channels=1"}
    answer = worker_http.post("/encode", params={"format": audio_format}, content=b"\x00\x10", headers=kind)
    assert answer.status_code == 200
    assert len(decode(answer.content, audio_format)[0]) >= 1


def test_too_much_is_refused(side: httpx2.Client) -> None:
    """While it arrives; nothing of it is kept."""
    answer = side.post("/encode?format=mp3", content=(bytes(2**20) for _ in range(60)), headers=PCM)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("seconds", [10, 60])
def test_a_full_disk_is_said_and_nothing_stays(tmp_path: Path, seconds: int) -> None:
    """507 while there is no room, be it for what arrives or for what is made of it; afterwards it is encoded."""
    noise = np.random.default_rng(0).integers(-9000, 9000, seconds * SAMPLE_RATE, "<i2").tobytes()
    with RunningWorker(free_port(0), data_dir=tmp_path) as worker:
        process = psutil.Process(worker.process.pid)

        def encode() -> httpx2.Response:
            return httpx2.post(
                f"{worker.url}/encode?format=wav", content=noise, headers=PCM, trust_env=False, timeout=60
            )

        assert encode().status_code == 200
        before = process.num_fds()
        process.rlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        for _ in range(5):
            refused = encode()
            assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")
        process.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert encode().status_code == 200
        wait_for(lambda: process.num_fds() <= before + 1, 5)


@pytest.mark.parametrize("sent", [0, 4_000_000, 8_000_000])
def test_callers_that_leave_are_not_worked_for(tmp_path: Path, sent: int) -> None:
    """Before, while or after their sound arrives; it is no fault of the service, and nothing of theirs stays."""
    with RunningWorker(free_port(0), data_dir=tmp_path) as worker:
        process = psutil.Process(worker.process.pid)
        before = process.num_fds()
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", worker.port)) as caller:
                head = "POST /encode?format=opus HTTP/1.1\r\nHost: w\r\nContent-Type: audio/pcm\r\n"
                caller.sendall(f"{head}Content-Length: 8000000\r\n\r\n".encode() + bytes(sent))
        wait_for(lambda: worker.log.read_text().count("client_gone") == 5)
        wait_for(lambda: process.num_fds() <= before + 1, 5)
        assert "crashed" not in worker.log.read_text()


async def test_few_wait_for_a_place() -> None:
    """One more is told to come again, instead of waiting until it is given up; afterwards there is room."""
    encoding = Encoding()

    async def file() -> bytes:
        second = bytes(2 * SAMPLE_RATE)
        return b"".join([piece async for piece in encoding.file(Body(second, len(second)), AudioFormat.flac)])

    answers = await asyncio.gather(*(file() for _ in range(7)), return_exceptions=True)
    assert [isinstance(answer, Overloaded) for answer in answers] == [False] * 6 + [True]
    assert {answer[:4] for answer in [*answers[:6], await file()] if isinstance(answer, bytes)} == {b"fLaC"}
