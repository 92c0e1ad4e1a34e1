"""Barge-in and back-pressure on the WebSocket that speaks text as it is written, with the `websockets` client."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.running import RunningWorker, free_port
from tests.workers.failing import BROKEN
from tests.workers.test_stream import heard, write


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
