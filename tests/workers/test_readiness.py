"""Readiness tells the truth while the engine fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import psutil
import pytest

from tests.running import RunningBalancer, RunningFleet, RunningWorker, free_port, wait_for

SPEECH = "/v1/audio/speech"
BODY = {"input": "Hello there.", "response_format": "pcm"}


@pytest.fixture
def worker() -> Iterator[RunningWorker]:
    with RunningWorker(free_port(0)) as running:
        yield running


def speaker_of(worker: RunningWorker) -> psutil.Process:
    return psutil.Process(worker.process.pid).children()[0]


def ready(worker: RunningWorker) -> int:
    return httpx2.get(f"{worker.url}/ready", trust_env=False, timeout=20).status_code


def test_hung_engine_is_not_ready_and_then_heals(worker: RunningWorker) -> None:
    """While the engine hangs on a job `/ready` turns 503; once it has been replaced it is 200 again."""
    assert ready(worker) == 200
    os.kill(speaker_of(worker).pid, signal.SIGSTOP)
    with (
        httpx2.Client(trust_env=False, timeout=20) as client,
        client.stream("POST", worker.url + SPEECH, json=BODY) as answer,
    ):
        assert answer.status_code == 503
        assert answer.read()
    assert ready(worker) == 200


def test_request_of_a_worker_whose_engine_is_lost_moves_to_another(worker: RunningWorker, fleet: RunningFleet) -> None:
    """A speaking process that hangs before it gave sound costs the caller time, not the answer."""
    with RunningBalancer(worker.url, fleet.worker_urls()[0]) as balancer:
        balancer.wait_ready(2)
        os.kill(speaker_of(worker).pid, signal.SIGSTOP)
        answers = [httpx2.post(balancer.url + SPEECH, json=BODY, trust_env=False, timeout=30) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        wait_for(lambda: balancer.stats().totals.in_flight == 0)


def test_silent_engine_is_seen_while_it_hangs(worker: RunningWorker) -> None:
    """A busy engine that makes no sound is not taken at its word."""
    os.kill(speaker_of(worker).pid, signal.SIGSTOP)
    with httpx2.Client(trust_env=False, timeout=20) as client:
        request = client.build_request("POST", worker.url + SPEECH, json=BODY)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(client.send, request)
            wait_for(lambda: ready(worker) == 503, 4.5)
            assert asked.result().status_code == 503
