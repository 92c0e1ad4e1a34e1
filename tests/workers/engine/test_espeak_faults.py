"""The embedded engine when things go wrong: full, killed, hung, closed; and when it has run for long."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing

import numpy as np
import psutil
import pytest

from fleet.errors import EngineLost, Overloaded
from tests.workers.engine.test_espeak import TEXT, heard, job
from workers.engine.espeak import EspeakEngine
from workers.engine.espeak.library import EspeakProcess, Turn


async def test_full_engine_says_so() -> None:
    """One job more than there are places is refused with a time to come again."""
    engine = EspeakEngine(max_jobs=1)
    try:
        async with aclosing(engine.submit(job(TEXT * 100))) as sound:
            await anext(sound)
            with pytest.raises(Overloaded) as refused:
                await heard(engine, job())
            assert refused.value.retry_after is not None
    finally:
        engine.close()


async def test_crash_of_the_library_costs_one_job() -> None:
    """When the speaking process is killed in mid-turn, that job fails with a typed error and the next one speaks."""
    engine = EspeakEngine()
    try:
        expected = await heard(engine, job())
        async with aclosing(engine.submit(job(TEXT * 200))) as sound:
            await anext(sound)
            _kill_speaker(engine)
            with pytest.raises(EngineLost):
                async for _ in sound:
                    pass
        assert np.array_equal(expected, await heard(engine, job()))
    finally:
        engine.close()


async def test_rest_of_a_broken_off_turn_is_never_heard_as_the_next_one() -> None:
    """When a turn is not read to its end, for whatever reason, the following one is exactly as ever."""
    process = EspeakProcess()
    turn = Turn(TEXT * 5, voice="en-us", pitch=50, range=50, rate=175)
    expected = np.concatenate(list(process.speak(turn)))
    broken_off = process.speak(turn)
    next(broken_off)
    broken_off.close()
    assert np.array_equal(expected, np.concatenate(list(process.speak(turn))))
    process.close()


async def test_hung_library_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """A speaking process that stops answering costs one job, and the next one speaks."""
    monkeypatch.setattr("workers.engine.espeak.library._STALL_S", 0.5)
    engine = EspeakEngine()
    try:
        os.kill(engine._process.pid, signal.SIGSTOP)
        with pytest.raises(EngineLost):
            await heard(engine, job())
        assert len(await heard(engine, job()))
    finally:
        engine.close()


async def test_library_that_cannot_be_started_again_heals(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the speaking process cannot be started, jobs are for another worker; then all is well."""
    engine = EspeakEngine()
    try:
        with monkeypatch.context() as broken:
            broken.setattr("sys.executable", "/nonexistent/python")
            _kill_speaker(engine)
            await asyncio.sleep(0.1)
            for _ in range(3):
                with pytest.raises(EngineLost, match="cannot be started"):
                    await heard(engine, job())
        assert len(await heard(engine, job()))
    finally:
        engine.close()


async def test_death_of_the_idle_library_costs_nothing() -> None:
    """A speaking process that died between two jobs is replaced before the next one notices."""
    engine = EspeakEngine()
    try:
        _kill_speaker(engine)
        await asyncio.sleep(0.1)
        assert len(await heard(engine, job()))
    finally:
        engine.close()


async def test_close_leaves_no_process_and_ends_every_stream() -> None:
    """After close a running job fails with a typed error and the speaking process is gone."""
    engine = EspeakEngine()
    pid = engine._process.pid
    async with aclosing(engine.submit(job(TEXT * 200))) as sound:
        await anext(sound)
        await asyncio.to_thread(engine.close)
        with pytest.raises(EngineLost):
            async for _ in sound:
                pass
    engine.close()
    assert not psutil.pid_exists(pid)
    assert not engine.status().ready
    with pytest.raises(EngineLost):
        await heard(engine, job())


async def test_memory_is_flat_over_a_thousand_jobs(engine: EspeakEngine) -> None:
    """Neither this process nor the speaking one grows, in any language."""
    languages = [None, "fr", "de", "cmn"]

    async def speak(count: int) -> None:
        for n in range(count):
            await heard(engine, job("Hello bonjour hallo.", language=languages[n % 4]))

    await speak(100)
    before = _memory(engine)
    await speak(1000)
    assert _memory(engine) - before < 8 * 2**20


def _kill_speaker(engine: EspeakEngine) -> None:
    os.killpg(engine._process.pid, signal.SIGKILL)


def _memory(engine: EspeakEngine) -> int:
    return int(psutil.Process().memory_info().rss + psutil.Process(engine._process.pid).memory_info().rss)
