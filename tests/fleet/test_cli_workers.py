"""`fleet drain`, `resume` and `restart --rolling` against a real fleet under load."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator

import httpx2
import pytest

from tests.running import ROOT, RunningBalancer, RunningFleet, RunningTone, wait_for

COMMAND = [sys.executable, "-P", "-c", "from fleet.cli import app; app()"]
BODY = {"input": "Speech goes on while workers come and go.", "response_format": "pcm"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningFleet]:
    """A fleet whose workers may be restarted."""
    with RunningFleet(tmp_path_factory.mktemp("own"), "--engine", "espeak") as running:
        yield running


def fleet(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLEET_URL": url, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


async def test_rolling_restart_fails_no_request(own: RunningFleet) -> None:
    """All workers are replaced by new processes under 20 requests a second, and every request is served whole."""
    before = own.worker_pids()
    over = asyncio.Event()
    answers: list[asyncio.Task[httpx2.Response]] = []
    async with httpx2.AsyncClient(base_url=own.url, timeout=30, trust_env=False) as client:

        async def load() -> None:
            while not over.is_set():
                answers.append(asyncio.create_task(client.post("/v1/audio/speech", json=BODY)))
                await asyncio.sleep(0.05)

        loading = asyncio.create_task(load())
        await asyncio.sleep(0.5)
        done = await asyncio.to_thread(fleet, own.url, "restart", "--rolling")
        over.set()
        await loading
        statuses = [(await answer).status_code for answer in answers]
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("restarted in") == 2
    assert len(statuses) > 40
    assert set(statuses) == {200}
    after = own.worker_pids()
    assert len(after) == 2
    assert not set(before) & set(after)


def test_drained_worker_is_told_as_such_until_it_resumes(own: RunningFleet) -> None:
    """`drain` waits until it is idle; requests go to the other; `resume` brings it back."""
    wait_for(lambda: own.stats().totals.ready == 2)
    drained = fleet(own.url, "drain", "worker-0")
    assert (drained.returncode, drained.stderr.split(";")[0]) == (0, "worker-0 is idle")
    assert "worker-0 is draining" in fleet(own.url, "status").stdout
    served = {httpx2.post(f"{own.url}/v1/audio/speech", json=BODY, trust_env=False) for _ in range(4)}
    assert {answer.headers["x-worker"] for answer in served} == {"worker-1"}
    assert fleet(own.url, "restart", "--rolling", "worker-1").returncode == 1, "nobody else would speak"
    assert fleet(own.url, "resume", "worker-0").stderr.strip() == "worker-0 is ready"
    wait_for(lambda: own.stats().totals.ready == 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["drain", "worker-7"], "there is no worker 'worker-7'; there are: worker-0, worker-1"),
        (["resume", "../health"], "there is nothing at /workers/../health"),
        (["restart"], "say --rolling"),
        (["restart", "--rolling", "nobody"], "there is no worker 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(own: RunningFleet, arguments: list[str], said: str) -> None:
    """With exit code 1, and nothing is changed."""
    done = fleet(own.url, *arguments)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert said in done.stderr
    assert own.stats().totals.ready == 2


def test_worker_that_nobody_starts_again_is_told() -> None:
    """It is not waited for for ever."""
    with RunningTone("a") as one, RunningTone("b") as two, RunningBalancer(one.url, two.url) as balancer:
        balancer.wait_ready(2)
        done = fleet(balancer.url, "restart", "--rolling", "a", "--timeout", "3")
        assert done.returncode == 1
        assert "does anything supervise it?" in done.stderr
