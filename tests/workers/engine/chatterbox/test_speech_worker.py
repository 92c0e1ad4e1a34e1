"""A worker process whose engine is lost while it speaks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.running import RunningWorker, free_port, wait_for
from tests.workers.failing import DEVICE_LOST, STUCK_AFTER_S
from workers.guard import ENGINE_LOST_EXIT

LONG_TEXT = "It speaks and speaks, and nobody knows for how long it will go on like this. " * 20


@contextmanager
def worker_that_loses(what: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningWorker]:
    """`python -m workers` on the tiny checkpoint; on SIGUSR1 its engine's thread meets the fault."""
    monkeypatch.setenv("FAILS", what)
    settings = {"engine": "chatterbox", "device": "cpu", "checkpoint": checkpoint, "precision": "fp32", "threads": 1}
    quick = {"max_tokens": 32, "max_rows": 16, "n_steps": 2, "stream_prompt_s": 0.4, "watermark": False}
    with RunningWorker(free_port(0), module="tests.workers.failing", **settings, **quick) as worker:
        yield worker


def test_worker_whose_device_is_lost_ends(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process ends within a second with its own code, and who asks it to speak is told to go elsewhere."""
    with worker_that_loses("device", tiny_checkpoint, monkeypatch) as worker:
        speech = {"input": LONG_TEXT, "response_format": "pcm"}
        with httpx2.Client(base_url=worker.url, trust_env=False, timeout=10) as client:
            assert client.get("/ready").status_code == 200
            os.kill(worker.process.pid, signal.SIGUSR1)
            asked_at = time.monotonic()
            answer = client.post("/v1/audio/speech", json=speech)
            assert worker.process.wait(5) == ENGINE_LOST_EXIT
            assert time.monotonic() - asked_at < 1
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_lost"
    assert DEVICE_LOST in answer.json()["error"]["message"]
    assert answer.headers["retry-after"]


def test_device_lost_in_the_middle_of_a_stream_cuts_it_short(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sound that has begun ends without its proper end, so that nobody takes it for the whole."""
    with worker_that_loses("device", tiny_checkpoint, monkeypatch) as worker:
        speech = {"input": LONG_TEXT, "response_format": "pcm"}
        with (
            httpx2.Client(base_url=worker.url, trust_env=False, timeout=10) as client,
            client.stream("POST", "/v1/audio/speech", json=speech) as answer,
        ):
            assert answer.status_code == 200
            pieces = answer.iter_bytes()
            assert next(pieces)
            os.kill(worker.process.pid, signal.SIGUSR1)
            with pytest.raises(httpx2.RemoteProtocolError):
                for _ in pieces:
                    pass
        assert worker.process.wait(5) == ENGINE_LOST_EXIT


def test_worker_whose_engine_is_stuck_ends(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that makes no step, here for a second, is given up with its process."""
    with worker_that_loses("thread", tiny_checkpoint, monkeypatch) as worker:

        def ask() -> None:
            with pytest.raises(httpx2.TransportError):
                httpx2.post(f"{worker.url}/v1/audio/speech", json={"input": LONG_TEXT}, trust_env=False, timeout=10)

        os.kill(worker.process.pid, signal.SIGUSR1)
        asking = threading.Thread(target=ask)
        asking.start()
        asked_at = time.monotonic()
        wait_for(lambda: worker.process.poll() is not None, STUCK_AFTER_S + 2)
        assert worker.process.returncode == ENGINE_LOST_EXIT
        assert time.monotonic() - asked_at > STUCK_AFTER_S
        asking.join()
