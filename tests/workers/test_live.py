"""Barge-in and back-pressure on the WebSocket that speaks text as it is written, with the `websockets` client."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from fleet.contract import SAMPLE_RATE
from tests.running import RunningFleet, RunningWorker, free_port
from tests.workers.failing import BROKEN
from tests.workers.test_stream import heard, write


LONG = "This goes on and on. "


@pytest.fixture
def address(fleet: RunningFleet) -> str:
    return fleet.worker_urls()[0].replace("http", "ws") + "/v1/audio/stream"


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
