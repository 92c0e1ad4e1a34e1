"""Jobs whose listeners have gone, at every point of their way through the engine."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from tests.running import wait_for
from tests.workers.engine.chatterbox.listening import (
    SAMPLES_PER_TOKEN,
    Gate,
    Listener,
    again,
    begin,
    hear,
    held,
    new_job,
    opened,
    record_sequences,
    speak,
    wait_idle,
)
from workers.engine.base import Job, Samples
from workers.engine.chatterbox import speeches
from workers.engine.chatterbox.engine import ChatterboxEngine
from workers.engine.chatterbox.rendering import SoundState
from workers.engine.chatterbox.s3gen import EulerBatch
from workers.engine.chatterbox.sequence import Sequence
from workers.engine.chatterbox.speeches import Segment, Speech
from workers.engine.chatterbox.streams import SpeechStream, Work

TEXT = "Somebody speaks at length of this and of that."
LONG_TEXT = " ".join([TEXT] * 10)
FREE_WITHIN_S = 1.0


@dataclass
class Neighbour:
    """A job that runs beside the cancelled one and must not notice."""

    engine: ChatterboxEngine
    job: Job
    expected: Samples

    def check(self, heard: Samples) -> None:
        assert np.array_equal(heard, self.expected)


@pytest.fixture
def neighbour(speech_engine: ChatterboxEngine) -> Neighbour:
    job = new_job("The neighbour goes on undisturbed.", seed=3)
    return Neighbour(speech_engine, job, speak(speech_engine, job))


@pytest.mark.parametrize("stage", ["decoding", "prefilling", "vocoding", "rendering"])
def test_job_cancelled_while_something_is_done_for_it(
    neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """What it held is free as soon as that is done, its stream ends without an error, and its neighbour is whole."""
    engine = neighbour.engine
    where, name, nth = {
        "prefilling": (engine._tokens.prefills, "run", 1),
        "decoding": (engine._tokens.steps, "run", 8),
        "vocoding": (EulerBatch, "step", 2),
        "rendering": (engine._vocoder._renderer, "render", 1),
    }[stage]
    with Gate(monkeypatch, where, name, nth=nth) as gate:
        job = new_job(TEXT)
        _, listener = begin(engine, job)
        assert gate.reached.wait(5)
        _, beside = begin(engine, neighbour.job)
        during = held(engine)
        engine.cancel(job.id)
    assert (during["slots"], during["streams"], during["queued"]) == (2, 1, 1)
    assert during["rows"] == (stage == "vocoding")
    listener.whole()
    wait_for(lambda: held(engine)["streams"] <= 1, FREE_WITHIN_S, every_s=0.005)
    neighbour.check(beside.whole())


def test_job_cancelled_before_it_is_admitted(neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is ever begun for it."""
    engine = neighbour.engine
    sequences = record_sequences(engine, monkeypatch)
    _, beside = begin(engine, neighbour.job)
    with Gate(monkeypatch, engine._tokens, "tick", nth=3) as gate:
        assert gate.reached.wait(5)
        job = new_job(TEXT)
        _, listener = begin(engine, job)
        assert engine.status().queued_jobs == 1
        engine.cancel(job.id)
    assert len(listener.whole()) == 0
    neighbour.check(beside.whole())
    assert len(sequences) == 1


def test_job_cancelled_while_it_waits_for_slots(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves the queue at once, also when none of those before it ends, and they sound as they do alone."""
    with opened(tiny_checkpoint, max_rows=4) as engine:
        jobs = [new_job(TEXT, seed=seed) for seed in (1, 2)]
        expected = [speak(engine, job) for job in jobs]
        scheduler = engine._tokens.scheduler
        with Gate(monkeypatch, engine._tokens.steps, "run", nth=4) as decoding:
            with Gate(monkeypatch, engine._tokens, "tick"):
                before = [begin(engine, again(job))[1] for job in jobs]
                job = new_job(TEXT, seed=3)
                _, listener = begin(engine, job)
            assert decoding.reached.wait(5)
            assert (scheduler.running, scheduler.waiting, scheduler.free_slots) == (2, 1, 0)
            engine.cancel(job.id)
        assert listener.ended.wait(FREE_WITHIN_S)
        assert scheduler.waiting == 0
        assert len(listener.whole()) == 0
        for sound, listening in zip(expected, before, strict=True):
            assert np.array_equal(sound, listening.whole())
        wait_idle(engine)


async def _closes_the_generator(engine: ChatterboxEngine, job: Job) -> None:
    async with aclosing(engine.submit(job)) as sound:
        await anext(sound)


async def _cancels_the_task(engine: ChatterboxEngine, job: Job) -> None:
    heard = asyncio.Event()

    async def read() -> None:
        async with aclosing(engine.submit(job)) as sound:
            async for _ in sound:
                heard.set()

    task = asyncio.create_task(read())
    await heard.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _cancels_by_id(engine: ChatterboxEngine, job: Job) -> None:
    async with aclosing(engine.submit(job)) as sound:
        first = await anext(sound)
        engine.cancel("unknown")
        engine.cancel(job.id)
        rest = [samples async for samples in sound]
    assert len(first) + sum(map(len, rest)) < 40 * SAMPLES_PER_TOKEN


@pytest.mark.parametrize("leave", [_closes_the_generator, _cancels_the_task, _cancels_by_id])
async def test_listener_leaves_after_the_first_sound(
    neighbour: Neighbour, leave: Callable[[ChatterboxEngine, Job], Awaitable[None]]
) -> None:
    """However he does, all that the job held is free within a second, and its neighbour is whole."""
    engine = neighbour.engine
    beside = asyncio.create_task(hear(engine, neighbour.job))
    await leave(engine, new_job(LONG_TEXT))
    await asyncio.to_thread(wait_for, lambda: held(engine)["streams"] <= 1, FREE_WITHIN_S, 0.005)
    neighbour.check(await beside)
    wait_idle(engine)


def test_long_text_is_left_with_all_its_segments(
    speech_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those under way end and the others are never begun."""
    monkeypatch.setattr(speeches, "SEGMENT_CHARS", len(TEXT))
    sequences = record_sequences(speech_engine, monkeypatch)
    job = new_job(" ".join([TEXT] * 8))
    _, listener = begin(speech_engine, job)
    wait_for(lambda: listener.pieces, 10, every_s=0.001)
    speech_engine.cancel(job.id)
    wait_idle(speech_engine, FREE_WITHIN_S)
    assert len(sequences) == 4
    assert listener.ended.is_set()


@pytest.fixture
def fleeting_engine(tiny_checkpoint: Path) -> Iterator[ChatterboxEngine]:
    """Of very short sounds."""
    with opened(tiny_checkpoint, max_tokens=10, n_steps=1, prompt_s=0.2, max_jobs=12, max_rows=8) as engine:
        yield engine


def test_two_hundred_jobs_leave_nothing(fleeting_engine: ChatterboxEngine) -> None:
    """With a third of them cancelled at any moment: rows, objects, threads, files and memory are where they were.

    Memory has settled after some 200 jobs of such different lengths, 45 MiB above what it is after 50.
    """
    engine, chance, process = fleeting_engine, random.Random(1), psutil.Process()
    wait_idle(engine)
    before = _objects()
    threads, files = threading.active_count(), _open_files()
    resident = 0
    cancelled: set[str] = set()
    live: list[tuple[str, Listener]] = []
    for number in range(200):
        job = new_job("word " * chance.randint(1, 12), seed=number, cfg_weight=0, temperature=chance.random())
        live.append((job.id, begin(engine, job)[1]))
        if chance.random() < 1 / 3:
            time.sleep(chance.random() * 0.05)
            left, _ = chance.choice(live)
            engine.cancel(left)
            cancelled.add(left)
        while len(live) >= 10:
            assert live[0][1].ended.wait(10)
            live = [one for one in live if not one[1].ended.is_set()]
        if number == 50:
            gc.collect()
            resident = process.memory_info().rss
    for _, listener in live:
        assert listener.ended.wait(10)
    wait_idle(engine)
    assert engine.status().ready
    assert len(cancelled) > 50
    del live, listener
    wait_for(lambda: _objects() == before, 2)
    assert process.memory_info().rss - resident < 96 * 2**20
    assert threading.active_count() <= threads
    assert _open_files() <= files


def _open_files() -> int:
    return psutil.Process().num_fds()


def _objects() -> Counter[str]:
    """What there is of the things that jobs are made of."""
    gc.collect()
    kinds = {Speech, Segment, Sequence, SpeechStream, Work, EulerBatch, SoundState, Listener, torch.Tensor}
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in kinds)
