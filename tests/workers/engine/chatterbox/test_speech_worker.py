"""A worker process whose device is lost while it speaks."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from tests.running import RunningWorker, free_port, jobs, wait_for
from tests.workers.failing import DEVICE_LOST
from workers.guard import ENGINE_LOST_EXIT

SPEECH = {"input": "It speaks on and on, and nobody knows for how long. " * 40, "response_format": "pcm"}


def test_worker_whose_device_is_lost_ends(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a second and with its own code: sound that has begun is cut short, who has none is sent elsewhere."""
    monkeypatch.setenv("FAILS", "device")
    settings = {
        "engine": "chatterbox",
        "device": "cpu",
        "checkpoint": tiny_checkpoint,
        "precision": "fp32",
        "threads": 1,
    }
    # The first request's segments fill all rows for a while, so that the second one waits.
    quick = {"max_tokens": 200, "max_rows": 8, "n_steps": 2, "stream_prompt_s": 0.4, "watermark": False}
    with (
        RunningWorker(free_port(0), module="tests.workers.failing", **settings, **quick) as worker,
        httpx2.Client(base_url=worker.url, trust_env=False, timeout=10) as client,
        ThreadPoolExecutor() as pool,
        client.stream("POST", "/v1/audio/speech", json=SPEECH) as speaking,
    ):
        pieces = speaking.iter_bytes()
        assert next(pieces)
        waiting = pool.submit(client.post, "/v1/audio/speech", json=SPEECH)
        wait_for(lambda: sum(jobs(worker.url)) == 2, every_s=0.01)
        os.kill(worker.process.pid, signal.SIGUSR1)
        lost_at = time.monotonic()
        assert worker.process.wait(5) == ENGINE_LOST_EXIT
        assert time.monotonic() - lost_at < 1
        with pytest.raises(httpx2.RemoteProtocolError):
            list(pieces)
        answer = waiting.result()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_lost"
    assert DEVICE_LOST in answer.json()["error"]["message"]
    assert answer.headers["retry-after"]
