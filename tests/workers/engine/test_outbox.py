"""The way from an engine's thread to the loop that reads."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from fleet.errors import SynthesisFailed
from workers.engine.base import Pause, rendered
from workers.engine.outbox import Outbox


def outbox(chunk_limit: int = 100) -> Outbox:
    return Outbox(chunk_limit=chunk_limit, on_read=lambda: None)


async def test_everything_put_by_another_thread_is_read_in_order() -> None:
    """No sample is lost or moved, however puts and reads interleave."""
    box = outbox()

    def produce() -> None:
        for n in range(1000):
            box.put(np.full(7, n, np.float32))
        box.end()

    thread = threading.Thread(target=produce)
    thread.start()
    pieces = []
    while (piece := await box.read()) is not None:
        pieces.append(piece)
    thread.join()
    assert np.array_equal(
        np.concatenate([rendered(piece) for piece in pieces]), np.repeat(np.arange(1000, dtype=np.float32), 7)
    )
    assert box.buffered == 0


async def test_piled_up_sound_is_joined_up_to_the_limit() -> None:
    """Small pieces that wait are read as one, and no read is much above the limit."""
    box = outbox(chunk_limit=20)
    for _ in range(10):
        box.put(np.zeros(8, np.float32))
    sizes = [len(piece) for _ in range(4) if (piece := await box.read()) is not None]
    assert sizes == [24, 24, 24, 8]


async def test_pauses_are_read_alone() -> None:
    """Sound is never joined across them, and a pause of no length is read too."""
    box = outbox()
    for sound in (np.zeros(3, np.float32), np.zeros(4, np.float32), Pause(0.001), Pause(0), np.zeros(5, np.float32)):
        box.put(sound)
    assert box.buffered == 3 + 4 + 24 + 5
    read = [await box.read() for _ in range(4)]
    assert [len(sound) for sound in read if sound is not None] == [7, 24, 0, 5]
    assert read[1:3] == [Pause(0.001), Pause(0)]


async def test_error_comes_after_the_sound_before_it() -> None:
    """What was made before a failure is still heard; then the failure is raised."""
    box = outbox()
    box.put(np.zeros(5, np.float32))
    box.end(SynthesisFailed("lost"))
    box.end()
    piece = await box.read()
    assert piece is not None
    assert len(piece) == 5
    with pytest.raises(SynthesisFailed):
        await box.read()


async def test_reading_waits_for_sound() -> None:
    """A read of an empty outbox ends when something is put."""
    box = outbox()
    reading = asyncio.create_task(box.read())
    await asyncio.sleep(0.01)
    assert not reading.done()
    box.put(np.zeros(3, np.float32))
    piece = await reading
    assert piece is not None
    assert len(piece) == 3


def test_putting_after_the_loop_has_closed_is_harmless() -> None:
    """An engine that outlives its reader's loop does not crash on it."""

    async def make() -> Outbox:
        return outbox()

    box = asyncio.run(make())
    box.put(np.zeros(3, np.float32))
    box.end()
