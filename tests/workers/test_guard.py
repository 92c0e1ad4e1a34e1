"""A worker whose engine is lost for good ends, so that it can be started anew."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from tests.running import RunningWorker, free_port
from tests.workers.failing import BLOCKED_LIMIT_S, LOST
from workers.guard import ENGINE_LOST_EXIT


@contextmanager
def failing_worker() -> Iterator[RunningWorker]:
    with RunningWorker(free_port(0), module="tests.workers.failing") as worker:
        yield worker


def lose_engine(worker: RunningWorker) -> None:
    os.kill(worker.process.pid, signal.SIGUSR1)


def test_worker_whose_engine_is_lost_is_not_ready_and_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """`/ready` says 503 with the reason for as long as there is someone to ask, and soon the exit code is 70."""
    monkeypatch.setenv("FAILS", "fatal")
    with failing_worker() as worker, httpx2.Client(base_url=worker.url, trust_env=False) as client:
        assert client.get("/ready").status_code == 200
        lose_engine(worker)
        lost_at = time.monotonic()
        answers = []
        while worker.process.poll() is None and time.monotonic() < lost_at + 5:
            try:
                answers.append(client.get("/ready"))
            except httpx2.TransportError:
                break
        assert worker.process.wait(5) == ENGINE_LOST_EXIT
        assert time.monotonic() - lost_at < 3
    refused = [answer for answer in answers if answer.status_code == 503]
    assert {answer.json()["error"]["message"] for answer in refused} == {LOST}
    assert answers[-1].status_code == 503


@pytest.mark.parametrize("way", ["raises", "stuck"])
def test_engine_that_cannot_be_asked_is_lost(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A status that raises is fatal, and neither it nor an event loop that hangs keeps the process alive."""
    monkeypatch.setenv("FAILS", way)
    with failing_worker() as worker:
        lose_engine(worker)
        assert worker.process.wait(1) == ENGINE_LOST_EXIT


def test_status_that_blocks_is_fatal_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose status never comes is given some seconds, here fewer, and then counts as lost."""
    monkeypatch.setenv("FAILS", "blocks")
    with failing_worker() as worker:
        lose_engine(worker)
        lost_at = time.monotonic()
        assert worker.process.wait(BLOCKED_LIMIT_S + 3) == ENGINE_LOST_EXIT
        assert time.monotonic() - lost_at > BLOCKED_LIMIT_S


def test_worker_that_was_stopped_as_a_whole_goes_on() -> None:
    """After SIGSTOP and SIGCONT the time that the worker slept is not held against its engine."""
    with failing_worker() as worker:
        os.kill(worker.process.pid, signal.SIGSTOP)
        time.sleep(BLOCKED_LIMIT_S + 1)
        os.kill(worker.process.pid, signal.SIGCONT)
        time.sleep(1)
        assert worker.process.poll() is None
        assert httpx2.get(f"{worker.url}/ready", trust_env=False).status_code == 200


def test_engine_closed_on_purpose_is_not_lost() -> None:
    """A worker that is told to stop ends as ever, whatever its engine says of itself while it closes."""
    with failing_worker() as worker:
        worker.process.terminate()
        assert worker.process.wait(10) in (0, -signal.SIGTERM)
