"""The WebSocket that speaks text as it is written, with the `websockets` client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from fleet.contract import SAMPLE_RATE, AudioFormat
from tests.running import RunningBalancer, RunningFleet, RunningWorker, free_port, in_flight, wait_for
from tests.sound import decode


@pytest.fixture(params=["worker", "balancer"])
def address(request: pytest.FixtureRequest, fleet: RunningFleet) -> str:
    url = fleet.url if request.param == "balancer" else fleet.worker_urls()[0]
    return url.replace("http", "ws") + "/v1/audio/stream"


async def write(socket: ClientConnection, *messages: dict[str, Any]) -> None:
    for message in messages:
        await socket.send(json.dumps(message))


async def heard(socket: ClientConnection, until: str) -> tuple[list[dict[str, Any]], bytes]:
    """Messages up to one of the kind, and the sound between them."""
    told, sound = [], b""
    while True:
        message = await asyncio.wait_for(socket.recv(), 20)
        if isinstance(message, bytes):
            sound += message
        else:
            told.append(json.loads(message))
            if told[-1]["type"] == until:
                return told, sound


async def test_words_become_sentences(address: str) -> None:
    """Each is spoken when it is complete, before anything behind it is written."""
    async with connect(address, proxy=None) as socket:
        await write(socket, {"type": "start", "voice": "nova", "seed": 3})
        for word in ("Hel", "lo there", ". How", " are"):
            await write(socket, {"type": "text", "text": word})
        told, _ = await heard(socket, "sentence")
        assert [message["type"] for message in told] == ["started", "sentence"]
        assert (told[0]["seed"], told[0]["format"], told[1]["text"]) == (3, "pcm", "Hello there.")
        await write(socket, {"type": "text", "text": " you?"}, {"type": "end"})
        told, sound = await heard(socket, "done")
        assert [message["type"] for message in told] == ["sentence", "utterance.done", "done"]
        assert told[0]["text"] == "How are you?"
        assert told[1]["audio_s"] > 0.8
        assert told[2]["usage"]["input_tokens"] == len("Hello there. How are you?")
        assert len(sound) > 2 * SAMPLE_RATE * 0.4
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1000


@pytest.mark.parametrize("audio_format", AudioFormat)
async def test_each_utterance_is_a_file(address: str, audio_format: AudioFormat) -> None:
    """Whole and readable, in every format."""
    async with connect(address, proxy=None) as socket:
        await write(socket, {"type": "start", "format": audio_format})
        for text in ("One two three.", "Four five six."):
            await write(socket, {"type": "text", "text": text}, {"type": "flush"})
            told, sound = await heard(socket, "utterance.done")
            samples, rate = decode(sound, audio_format)
            assert len(samples) / rate == pytest.approx(told[-1]["audio_s"], abs=0.15)
            assert 0.1 < abs(samples).max() <= 1


async def test_cancel_stops_at_once_and_the_next_is_spoken(address: str, fleet: RunningFleet) -> None:
    """Nothing of the cancelled text comes after the word of it, and the engine is free."""
    async with connect(address, proxy=None) as socket:
        await write(socket, {"type": "text", "text": "This goes on and on. " * 200})
        await heard(socket, "sentence")
        await write(socket, {"type": "cancel"}, {"type": "text", "text": "New."}, {"type": "end"})
        told, _ = await heard(socket, "utterance.done")
        assert told[-1]["cancelled"]
        told, sound = await heard(socket, "done")
        assert told[0]["text"] == "New."
        assert len(sound) / 2 / SAMPLE_RATE < 2
    wait_for(lambda: in_flight(fleet) == 0, 1)


async def test_leaving_frees_the_engine(address: str, fleet: RunningFleet) -> None:
    """Within a second, whatever was being said."""
    async with connect(address, proxy=None) as socket:
        await write(socket, {"type": "text", "text": "This goes on and on. " * 400})
        await heard(socket, "sentence")
        socket.transport.abort()
    await asyncio.to_thread(wait_for, lambda: in_flight(fleet) == 0, 1)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("{", None),
        ("[]", None),
        ('{"type": "sing"}', "type"),
        ('{"text": "Hello."}', "type"),
        ('{"type": "text", "text": 5}', "text"),
        ('{"type": "text", "text": "\\ud800"}', "text"),
        ('{"type": "start", "voice": "\\udc00"}', "voice"),
        ('{"type": "start", "speed": NaN}', "speed"),
        ('{"type": "start", "seed": "1"}', "seed"),
        ("[" * 100_000, None),
        ('{"type": "start", "speed": 9}', "speed"),
        ('{"type": "start", "voice": "nobody"}', "voice"),
        ('{"type": "start", "sped": 1}', "sped"),
        (b"sound", None),
    ],
)
async def test_bad_messages_are_told_and_close(address: str, message: str | bytes, param: str | None) -> None:
    """With the field's name, then 1008."""
    async with connect(address, proxy=None) as socket:
        await socket.send(message)
        told, _ = await heard(socket, "error")
        assert told[-1]["error"]["param"] == param, told
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code == 1008


async def test_dots_alone_are_passed_over(address: str) -> None:
    """What makes no sound within a text is no error."""
    async with connect(address, proxy=None) as socket:
        await write(socket, {"type": "text", "text": "...\nHello.\n"}, {"type": "end"})
        told, sound = await heard(socket, "done")
        assert [message["text"] for message in told if message["type"] == "sentence"] == ["Hello."]
        assert sound


async def test_idle_and_endless_connections_end() -> None:
    """Each limit with an error that says which."""
    for setting in ("stream_idle_s", "stream_limit_s"):
        settings: dict[str, Any] = {setting: 0.5}
        with RunningWorker(free_port(0), **settings) as worker:
            async with connect(worker.url.replace("http", "ws") + "/v1/audio/stream", proxy=None) as socket:
                told, _ = await heard(socket, "error")
                assert told[-1]["error"]["code"] == "request_timeout"


async def test_other_origins_and_paths_are_refused(address: str) -> None:
    """Before the handshake, as HTTP would be."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(address, proxy=None, origin="https://evil.example")  # type: ignore[arg-type]  # a NewType of str
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["error"]["code"] == "origin_not_allowed"
    with pytest.raises(InvalidStatus) as refused:
        await connect(address + "s", proxy=None)
    assert refused.value.response.status_code == 404


async def test_a_lost_worker_is_told_and_the_next_connection_is_served(tmp_path: Path) -> None:
    """An honest end for who was served by it; whoever comes then is taken to another."""
    with (
        RunningWorker(free_port(0), data_dir=tmp_path) as one,
        RunningWorker(free_port(0), data_dir=tmp_path) as two,
        RunningBalancer(one.url, two.url, probe_interval_s=30) as balancer,
    ):
        balancer.wait_ready(2)
        address = balancer.url.replace("http", "ws") + "/v1/audio/stream"
        async with connect(address, proxy=None) as socket:
            await write(socket, {"type": "text", "text": "This goes on and on. " * 400})
            await heard(socket, "sentence")
            serving = next(w for w, s in zip((one, two), balancer.stats().workers, strict=True) if s.in_flight)
            psutil.Process(serving.process.pid).kill()
            told, _ = await heard(socket, "error")
            assert told[-1]["error"]["code"] == "upstream_failed"
        for _ in range(3):
            async with connect(address, proxy=None) as socket:
                await write(socket, {"type": "text", "text": "Hello."}, {"type": "end"})
                assert (await heard(socket, "done"))[1]


async def test_a_slow_listener_holds_the_engine_back(fleet: RunningFleet) -> None:
    """What nobody takes is not piled up in the worker."""
    address = fleet.worker_urls()[0].replace("http", "ws") + "/v1/audio/stream"
    worker = psutil.Process(httpx2.get(f"{fleet.worker_urls()[0]}/health", trust_env=False).json()["pid"])
    # The listener's own pings would wait behind the sound that it does not take, and it would give up.
    async with connect(address, proxy=None, max_queue=1, ping_interval=None) as socket:
        before = worker.memory_info().rss
        await write(socket, {"type": "text", "text": "This goes on and on. " * 450}, {"type": "flush"})
        await asyncio.sleep(3)
        assert worker.memory_info().rss - before < 30e6
        told, sound = await heard(socket, "utterance.done")
        assert len(sound) / 2 / SAMPLE_RATE == pytest.approx(told[-1]["audio_s"], abs=0.01)
