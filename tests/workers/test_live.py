"""Barge-in and back-pressure on the WebSocket that speaks text as it is written, with the `websockets` client."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from fleet.contract import SAMPLE_RATE
from fleet.stream_contract import Start
from tests.running import RunningFleet, RunningWorker, free_port
from tests.workers.failing import BROKEN
from tests.workers.test_stream import heard, write
from workers.engine.espeak import EspeakEngine
from workers.engine.pauses import SENTENCE_PAUSE_S
from workers.live import LiveSpeech
from workers.metrics import WorkerMetrics
from workers.readiness import ReadinessCheck
from workers.resolution import resolve
from workers.synthesis import Synthesis
from workers.voices.opening import open_library

LONG = "This goes on and on. "


@pytest.fixture
def address(fleet: RunningFleet) -> str:
    return fleet.worker_urls()[0].replace("http", "ws") + "/v1/audio/stream"


@pytest.fixture
async def live(engine: EspeakEngine, tmp_path: Path) -> AsyncIterator[LiveSpeech]:
    """On the embedded engine; 1,000 characters may wait."""
    library, close = open_library(
        engine, tmp_path, database_url=None, name="test", limit_bytes=0, wait_s=1, cache_bytes=0
    )
    speech = resolve(Start(), capabilities=engine.capabilities, library=library.snapshot, max_text_chars=100)
    synthesis = Synthesis(engine, library, WorkerMetrics(engine), ReadinessCheck(engine))
    opened = LiveSpeech(synthesis, speech, language="en", max_waiting_chars=1000)
    yield opened
    await opened.aclose()
    close()


def done(told: list[dict[str, Any]]) -> list[tuple[int, bool]]:
    """Utterances told as done, and whether they were cancelled."""
    return [(message["utterance"], message["cancelled"]) for message in told if message["type"] == "utterance.done"]


async def test_every_utterance_is_done_once(address: str) -> None:
    """Those that were flushed before a cancel, too, each with the seconds of its own sound."""
    async with connect(address, proxy=None) as socket:
        written = {"type": "text", "text": LONG * 20}
        await write(socket, written, {"type": "flush"}, written, {"type": "flush"}, written)
        begun, first = await heard(socket, "sentence")
        await write(socket, {"type": "cancel"}, {"type": "text", "text": "New."}, {"type": "end"})
        told, sound = await heard(socket, "done")
    assert done(told) == [(0, True), (1, True), (2, True), (3, False)]
    assert {message["utterance"] for message in [*begun, *told] if message["type"] == "sentence"} == {0, 3}
    seconds = [message["audio_s"] for message in told if message["type"] == "utterance.done"]
    assert seconds[0] > 0
    assert seconds[1:3] == [0, 0]
    assert sum(seconds) == pytest.approx((len(first) + len(sound)) / 2 / SAMPLE_RATE, abs=0.01)


@pytest.mark.parametrize("speed", [0.5, 3])
async def test_seconds_are_of_the_sound_that_is_sent(address: str, speed: float) -> None:
    """At the tempo that was asked for; the pauses between sentences are there at any."""
    async with connect(address, proxy=None) as socket:
        await write(socket, {"type": "start", "speed": speed}, {"type": "text", "text": LONG * 3}, {"type": "end"})
        told, sound = await heard(socket, "done")
    seconds = len(sound) / 2 / SAMPLE_RATE
    assert told[-2]["audio_s"] == pytest.approx(seconds, abs=0.001)
    assert told[-1]["usage"]["output_tokens"] == math.ceil(25 * seconds)
    assert seconds * speed > 3 * 1 + 2 * SENTENCE_PAUSE_S


async def test_cancel_acts_at_once_while_text_waits_for_room(address: str) -> None:
    """However slowly the text is spoken, and however many messages it came in."""
    async with connect(address, proxy=None) as socket:
        await write(socket, {"type": "start", "speed": 0.25})
        for _ in range(5):
            await write(socket, {"type": "text", "text": LONG * 470})
        for _ in range(100):
            await write(socket, {"type": "text", "text": "more "})
        await write(socket, {"type": "flush"}, {"type": "text", "text": LONG}, {"type": "cancel"})
        asked_at = time.monotonic()
        told, _ = await heard(socket, "utterance.done")
        assert time.monotonic() - asked_at < 3
        assert done(told) == [(0, True)]
        await write(socket, {"type": "text", "text": "New."}, {"type": "end"})
        told, _ = await heard(socket, "done")
        assert done(told) == [(1, True), (2, False)]
        assert [message["text"] for message in told if message["type"] == "sentence"] == ["New."]


async def test_text_that_had_to_wait_is_spoken_in_order() -> None:
    """Each under its own utterance, although none of the messages waited for the one before."""
    with RunningWorker(free_port(0), max_text_chars=100) as worker:
        async with connect(worker.url.replace("http", "ws") + "/v1/audio/stream", proxy=None) as socket:
            for number in range(10):
                text = f"This is number {number}. " + "And that is all of it. " * 3
                await write(socket, {"type": "text", "text": text}, {"type": "flush"})
            await write(socket, {"type": "end"})
            told, _ = await heard(socket, "done")
    assert done(told) == [(number, False) for number in range(11)]
    found = [(message["utterance"], message["text"]) for message in told if message["type"] == "sentence"]
    assert found == sorted(found, key=lambda each: each[0])
    assert len(found) == 40
    assert [text for _, text in found[::4]] == [f"This is number {number}." for number in range(10)]


async def test_a_flood_is_read_no_further(address: str) -> None:
    """What one connection may have waiting is bounded."""
    async with connect(address, proxy=None, max_queue=1, write_limit=1024) as socket:
        await write(socket, {"type": "start", "speed": 0.25})

        async def flood() -> None:
            while True:
                await write(socket, {"type": "text", "text": LONG * 400})
                await asyncio.sleep(0)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 3)
        socket.transport.abort()


@pytest.mark.parametrize("message", [None, "", "word "])
async def test_what_may_wait_is_bounded_in_messages_too(live: LiveSpeech, message: str | None) -> None:
    """Flushes whose ends nobody hears of, and words behind a text that has no room; a cancel forgets the words."""
    for _ in range(2):
        live.write("word " * 180)
        live.flush()
    for _ in range(900):
        live.flush() if message is None else live.write(message)
    await asyncio.wait_for(live.room(), 1)
    for _ in range(200):
        live.flush() if message is None else live.write(message)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(live.room(), 0.1)
    await live.cancel()
    if message is None:
        hearing = aiter(live.heard())
        for _ in range(1103):
            assert await anext(hearing)
    await asyncio.wait_for(live.room(), 1)


async def test_an_error_of_ours_is_told_and_closes() -> None:
    """As internal, with 1011, after the sound of what could be said."""
    with RunningWorker(free_port(0), module="tests.workers.failing") as worker:
        async with connect(worker.url.replace("http", "ws") + "/v1/audio/stream", proxy=None) as socket:
            await write(socket, {"type": "text", "text": f"Hello. {BROKEN}. Never heard."}, {"type": "end"})
            told, sound = await heard(socket, "error")
            assert (told[-2]["text"], told[-1]["error"]["code"]) == ("Hello.", "internal_error")
            assert sound
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1011
