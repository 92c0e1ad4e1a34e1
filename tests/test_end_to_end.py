"""The whole fleet as its users meet it: real processes, real sockets, the real OpenAI client."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2
import openai
import psutil
import pytest

from fleet.contract import SAMPLE_RATE, AudioFormat
from tests.running import RunningFleet, in_flight, wait_for
from tests.sound import decode, loudness

TEXT = "The quick brown fox jumps over the lazy dog, and then it speaks again."
SPEECH = "/v1/audio/speech"


@pytest.fixture
async def client(fleet: RunningFleet) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=fleet.url, timeout=60, trust_env=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def openai_client(fleet: RunningFleet) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_openai_client_gets_speech(openai_client: openai.OpenAI, audio_format: AudioFormat) -> None:
    """The installed `openai` package speaks every format against our address, unmodified."""
    answer = openai_client.audio.speech.create(
        model="gpt-4o-mini-tts", voice="alloy", input=TEXT, response_format=audio_format.value
    )
    samples, rate = decode(answer.content, audio_format)
    assert rate in (SAMPLE_RATE, 48_000)
    assert 3.5 < len(samples) / rate < 5.5
    assert loudness(samples) > 0.02


def test_openai_client_streams(openai_client: openai.OpenAI, fleet: RunningFleet) -> None:
    """`with_streaming_response` hands out sound while most of a long text is not spoken yet."""
    streaming = openai_client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="nova", input=TEXT * 120, response_format="pcm"
    )
    started_at = time.monotonic()
    received, first_after, pieces = 0, None, 0
    with streaming as answer:
        for piece in answer.iter_bytes():
            first_after = first_after or time.monotonic() - started_at
            received, pieces = received + len(piece), pieces + 1
    whole_after = time.monotonic() - started_at
    assert received / 2 / SAMPLE_RATE > 300
    assert pieces > 20
    assert first_after is not None
    assert first_after < whole_after / 3
    wait_for(lambda: in_flight(fleet) == 0, 2)


def test_openai_client_reads_our_errors(openai_client: openai.OpenAI) -> None:
    """A refusal arrives as the client's own exception with our code and field."""
    with pytest.raises(openai.NotFoundError) as refused:
        openai_client.audio.speech.create(model="tts-1", voice="nobody", input="hi")
    assert isinstance(refused.value.body, dict)
    assert (refused.value.body["code"], refused.value.body["param"]) == ("voice_not_found", "voice")
    with pytest.raises(openai.UnprocessableEntityError):
        openai_client.audio.speech.create(model="tts-1", voice="alloy", input=" ")


def test_openai_client_lists_models(openai_client: openai.OpenAI) -> None:
    """`models.list()` and `models.retrieve()` work."""
    assert "tts-1" in {model.id for model in openai_client.models.list()}
    assert openai_client.models.retrieve("tts-1").object == "model"


async def test_hundred_requests_at_once_equal_the_same_alone(client: httpx2.AsyncClient) -> None:
    """A hundred different texts, voices and emotions at the same time are each as if spoken alone, on either worker."""
    voices, emotions = ("alto", "tenor", "whisper", "soprano"), (None, "calm", "expressive")
    requests = [
        {
            "text": f"Request number {n} says {'many words and ' * (n % 9)}its own number, {n}.",
            "voice": voices[n % 4],
            "format": "pcm",
            **({"emotion": emotion} if (emotion := emotions[n % 3]) else {}),
        }
        for n in range(100)
    ]

    async def speak(body: Mapping[str, str]) -> bytes:
        answer = await client.post("/synthesize", json=body)
        assert answer.status_code == 200
        return answer.content

    together = await asyncio.gather(*(speak(body) for body in requests))
    assert len(set(together)) == 100
    for body, sound in zip(requests, together, strict=True):
        assert await speak(body) == sound, body


@dataclass
class Outcome:
    began: bool = False
    error: str | None = None
    status: int | None = None


async def test_killed_worker_fails_no_request_that_had_not_begun(tmp_path: Path) -> None:
    """SIGKILL of one worker, then of the other, under 20 requests/s: all whose body had not begun succeed."""
    with RunningFleet(tmp_path, "--engine", "espeak") as fleet:
        async with httpx2.AsyncClient(base_url=fleet.url, timeout=30, trust_env=False) as client:
            outcomes = [Outcome() for _ in range(200)]
            at_once = asyncio.Semaphore(24)  # so that two kills cut 48 streams at most, however slow the machine

            async def request(number: int, outcome: Outcome) -> None:
                await asyncio.sleep(number / 20)
                async with at_once:
                    await speak(number, outcome)

            async def speak(number: int, outcome: Outcome) -> None:
                body = {"input": f"Request {number}. " + TEXT * (number % 12), "response_format": "pcm"}
                try:
                    async with client.stream("POST", SPEECH, json=body) as answer:
                        outcome.status = answer.status_code
                        async for _ in answer.aiter_raw():
                            outcome.began = True
                except httpx2.HTTPError as error:
                    outcome.error = repr(error)

            async def kill() -> None:
                for victim in (0, 1):
                    await asyncio.sleep(2)
                    await asyncio.to_thread(wait_for, lambda: fleet.stats().totals.ready == 2)
                    os.kill((await asyncio.to_thread(fleet.worker_pids))[victim], signal.SIGKILL)

            await asyncio.gather(kill(), *(request(number, outcome) for number, outcome in enumerate(outcomes)))
        failed = [outcome for outcome in outcomes if not outcome.began and (outcome.error or outcome.status != 200)]
        assert not failed
        assert sum(outcome.error is None for outcome in outcomes) > 150
        wait_for(lambda: fleet.stats().totals.ready == 2, 20)
        wait_for(lambda: in_flight(fleet) == 0, 5)


def test_fleet_runs_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    """Neither the balancer nor an espeak worker needs torch: with an unimportable one on the path, both serve."""
    trap = tmp_path / "trap"
    trap.mkdir()
    (trap / "torch.py").write_text("raise ImportError('torch must not be imported here')\n")
    environment = {"PYTHONPATH": f"{trap}:{Path(__file__).parent.parent}"}
    with RunningFleet(tmp_path / "data", "--engine", "espeak", environment=environment) as fleet:
        answer = httpx2.post(fleet.url + SPEECH, json={"input": TEXT}, trust_env=False)
        assert answer.status_code == 200
        maps = "".join(Path(f"/proc/{process.pid}/maps").read_text() for process in fleet.descendants())
        assert "libtorch" not in maps


def test_memory_is_flat_over_a_thousand_requests(fleet: RunningFleet, http: httpx2.Client) -> None:
    """No process of the fleet grows with the requests it has served."""

    def speak(count: int) -> None:
        for n in range(count):
            body = {"input": f"Number {n}.", "response_format": ("mp3", "opus", "flac", "wav", "aac")[n % 5]}
            assert http.post(SPEECH, json=body).status_code == 200

    speak(150)
    before = {process.pid: process.memory_info().rss for process in fleet.descendants()}
    speak(1000)
    for pid, was in before.items():
        assert psutil.Process(pid).memory_info().rss - was < 12 * 2**20
