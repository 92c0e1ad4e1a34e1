"""Speech as server-sent events, on a worker and through the balancer."""

from __future__ import annotations

import base64
import json
import math
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import psutil
import pytest

from fleet.contract import SAMPLE_RATE, AudioFormat
from tests.running import RunningFleet, RunningWorker, free_port, in_flight, jobs, wait_for
from tests.sound import decode

TEXT = "The quick brown fox jumps over the lazy dog. "


@pytest.fixture(params=["worker", "balancer"])
def side(request: pytest.FixtureRequest, http: httpx2.Client, worker_http: httpx2.Client) -> httpx2.Client:
    return http if request.param == "balancer" else worker_http


def events_of(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """As the HTML standard has them parsed: a kind and its data."""
    kind, data = "message", ""
    for line in lines:
        field, _, value = line.partition(": ")
        if field == "event":
            kind = value
        elif field == "data":
            data += value
        elif not line and data:
            yield kind, json.loads(data)
            kind, data = "message", ""


@pytest.mark.parametrize("audio_format", AudioFormat)
def test_events_hold_the_same_file(side: httpx2.Client, audio_format: AudioFormat) -> None:
    """The pieces together are what the bare stream is; the last event tells what was used."""
    body = {"input": TEXT * 3, "voice": "nova", "response_format": audio_format, "seed": 5}
    bare = side.post("/v1/audio/speech", json=body)
    answer = side.post("/v1/audio/speech", json=body | {"stream_format": "sse"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (answer.headers["x-seed"], answer.headers["x-accel-buffering"]) == ("5", "no")
    *deltas, (last, done) = events_of(iter(answer.text.split("\n")))
    assert {kind for kind, _ in deltas} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(data["audio"], validate=True) for _, data in deltas) == bare.content
    assert (last, done["type"]) == ("speech.audio.done", "speech.audio.done")
    samples, rate = decode(bare.content, audio_format)
    usage = done["usage"]
    assert usage["input_tokens"] == len(TEXT * 3)
    assert usage["output_tokens"] == pytest.approx(25 * len(samples) / rate, abs=5)
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


@pytest.mark.parametrize("speed", [0.25, 1, 4])
def test_tokens_count_the_sound_that_is_sent(worker_http: httpx2.Client, speed: float) -> None:
    """40 ms each, at the tempo that was asked for."""
    answer = worker_http.post("/synthesize/stream", json={"text": TEXT, "format": "pcm", "speed": speed})
    *deltas, (_, done) = events_of(iter(answer.text.split("\n")))
    samples = sum(len(base64.b64decode(data["audio"])) // 2 for kind, data in deltas if "delta" in kind)
    assert done["usage"]["output_tokens"] == math.ceil(25 * samples / SAMPLE_RATE)


def test_native_stream_is_events_or_bare_sound(side: httpx2.Client) -> None:
    """Events where nothing else is asked for."""
    body = {"text": TEXT, "format": "wav", "seed": 1}
    told = side.post("/synthesize/stream", json=body)
    bare = side.post("/synthesize/stream", json=body | {"stream_format": "audio"})
    assert bare.headers["content-type"] == "audio/wav"
    assert bare.content == side.post("/synthesize", json=body).content
    sound = [
        base64.b64decode(data["audio"]) for kind, data in events_of(iter(told.text.split("\n"))) if "delta" in kind
    ]
    assert b"".join(sound) == bare.content


def test_openai_client_reads_the_events(fleet: RunningFleet) -> None:
    """The installed `openai` package hands them out while a long text is still being spoken."""
    client = openai.OpenAI(base_url=f"{fleet.url}/v1", api_key="none", max_retries=0)
    streaming = client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input=TEXT * 40, response_format="pcm", stream_format="sse"
    )
    with streaming as answer:
        kinds = [kind for kind, _ in events_of(answer.iter_lines())]
    assert kinds[-1] == "speech.audio.done"
    assert len(kinds) > 5


def test_what_fails_at_once_has_a_status(side: httpx2.Client) -> None:
    """A refusal is JSON, whatever the answer would have been."""
    for path, body, field in (
        ("/v1/audio/speech", {"input": "...", "stream_format": "sse"}, "input"),
        ("/synthesize/stream", {"text": "..."}, "text"),
        ("/synthesize/stream", {"text": "a", "stream_format": "x"}, "stream_format"),
    ):
        refused = side.post(path, json=body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, field)


def test_what_fails_later_is_an_event(tmp_path: Path) -> None:
    """After the first sound an error is the last event, in the shape of every error, and nothing is done."""
    with (
        RunningWorker(free_port(0), data_dir=tmp_path) as worker,
        httpx2.stream(
            "POST",
            f"{worker.url}/synthesize/stream",
            json={"text": TEXT * 200, "format": "pcm"},
            headers={"x-request-id": "broken"},
            trust_env=False,
            timeout=30,
        ) as answer,
    ):
        events = events_of(answer.iter_lines())
        assert next(kind for kind, _ in events if kind != "speech.segments") == "speech.audio.delta"
        for child in psutil.Process(worker.process.pid).children(recursive=True):
            child.send_signal(signal.SIGKILL)
        kind, data = list(events)[-1]
        assert (kind, data["type"], data["error"]["request_id"]) == ("error", "error", "broken")
        assert data["error"]["code"] in {"engine_lost", "synthesis_failed"}
        wait_for(lambda: jobs(worker.url) == (0, 0))


def test_caller_that_leaves_frees_the_engine(fleet: RunningFleet) -> None:
    """Within a second, at a worker and through the balancer."""
    for url in (fleet.url, fleet.worker_urls()[0]):
        with httpx2.stream(
            "POST", f"{url}/synthesize/stream", json={"text": TEXT * 200}, trust_env=False, timeout=30
        ) as answer:
            assert next(answer.iter_bytes())
        wait_for(lambda: in_flight(fleet) == 0, 1.0)


def test_events_are_documented(http: httpx2.Client) -> None:
    """The OpenAPI document names the events' type beside the sound's for both routes."""
    document = http.get("/openapi.json").json()
    for path in ("/v1/audio/speech", "/synthesize/stream"):
        content = document["paths"][path]["post"]["responses"]["200"]["content"]
        assert {"text/event-stream", "audio/mpeg"} <= content.keys()
    fields = document["components"]["schemas"]["SpeechRequest"]
    assert fields["properties"]["stream_format"]["enum"] == ["audio", "sse"]
