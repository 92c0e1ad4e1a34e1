"""Readiness tells the truth while the engine fails, and tells it at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import httpx2
import psutil
import pytest

from fleet.errors import EngineLost
from fleet.speech_contract import SpeechRequest
from tests.running import RunningBalancer, RunningFleet, RunningWorker, free_port, jobs, wait_for
from workers.engine.base import Capabilities, EngineStatus, Job, Sound
from workers.engine.espeak import EspeakEngine
from workers.metrics import WorkerMetrics
from workers.readiness import Patience, ReadinessCheck
from workers.resolution import resolve
from workers.synthesis import Synthesis
from workers.voices.opening import open_library

SPEECH = "/v1/audio/speech"
BODY = {"input": "Hello there.", "response_format": "pcm"}


@pytest.fixture
def worker(fleet: RunningFleet) -> Iterator[RunningWorker]:
    with RunningWorker(free_port(0), data_dir=fleet.data) as running:
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


def reason(worker: RunningWorker) -> str:
    return str(httpx2.get(f"{worker.url}/ready", trust_env=False, timeout=20).json()["error"]["message"])


def test_engine_that_hangs_before_it_has_spoken_is_never_ready(worker: RunningWorker) -> None:
    """Before any proof a caller waits for the trial, though no longer than 1.5 s, and hears that it is under way."""
    os.kill(speaker_of(worker).pid, signal.SIGSTOP)
    asked_at = time.monotonic()
    assert reason(worker) == "a trial synthesis is under way"
    assert 1.4 < time.monotonic() - asked_at < 2
    wait_for(lambda: "has made no sound" in reason(worker), 2)
    wait_for(lambda: ready(worker) == 200, 10)


def test_idle_engine_that_hangs_is_found_out_without_a_wait(worker: RunningWorker) -> None:
    """While the next trial runs, the last good one counts and the answer is immediate; then the silence is seen."""
    assert ready(worker) == 200
    wait_for(lambda: jobs(worker.url) == (0, 0))  # else the last trial's own turn would hang, and heal meanwhile
    os.kill(speaker_of(worker).pid, signal.SIGSTOP)
    time.sleep(5.1)
    asked_at = time.monotonic()
    assert ready(worker) == 200
    assert time.monotonic() - asked_at < 0.5
    wait_for(lambda: ready(worker) == 503, 3)


class HesitantEngine(EspeakEngine):
    """The embedded engine, that speaks once it is let; its status and first sound can be given."""

    def __init__(self) -> None:
        super().__init__()
        self.let = asyncio.Event()
        self.asked = self.waiting = 0
        self.error: Exception | None = None
        self.first_sound_s, self.silent_s = 0.1, 0.0
        self.fatal: str | None = None

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, first_sound_s=self.first_sound_s)

    def status(self) -> EngineStatus:
        status = super().status()
        running = status.running_jobs + self.waiting
        return replace(status, running_jobs=running, silent_s=self.silent_s or status.silent_s, fatal=self.fatal)

    async def submit(self, job: Job) -> AsyncGenerator[Sound, None]:
        self.asked += 1
        self.waiting += 1
        try:
            await self.let.wait()
        finally:
            self.waiting -= 1
        if self.error is not None:
            raise self.error
        async with aclosing(super().submit(job)) as sound:
            async for samples in sound:
                yield samples


@pytest.fixture
async def hesitant() -> AsyncIterator[HesitantEngine]:
    engine = HesitantEngine()
    yield engine
    engine.close()


@pytest.fixture
async def check(hesitant: HesitantEngine) -> AsyncIterator[ReadinessCheck]:
    readiness = ReadinessCheck(hesitant)
    yield readiness
    await readiness.close()


async def grow_old(check: ReadinessCheck, engine: EspeakEngine) -> None:
    """As if the last proof were a minute ago, and its job over."""
    await asyncio.to_thread(wait_for, lambda: engine.status().running_jobs == 0)
    assert check._proved_at is not None
    check._proved_at -= 60


@pytest.mark.parametrize(
    ("first_sound_s", "patience"), [(0.1, (5, 5, 2)), (0.4, (8, 5, 2)), (1, (20, 5, 5)), (10, (200, 50, 50))]
)
def test_slower_engine_is_given_more_time(first_sound_s: float, patience: tuple[float, float, float]) -> None:
    """A proof lasts 20 first sounds, a trial and a busy engine's silence may last 5; the least is 5, 5 and 2 s."""
    given = Patience.with_first_sound_after(first_sound_s)
    assert (given.proof, given.trial, given.silence) == patience


async def test_trial_is_waited_for_until_something_is_proved(hesitant: HesitantEngine, check: ReadinessCheck) -> None:
    """All who ask before the first sound wait for the same trial, and each for at most 1.5 s."""
    verdicts = await asyncio.wait_for(asyncio.gather(check.check(), check.check()), 1.9)
    assert [verdict.reason for verdict in verdicts] == ["a trial synthesis is under way"] * 2
    hesitant.let.set()
    assert (await check.check()).ready
    assert hesitant.asked == 1


async def test_old_proof_counts_while_a_trial_runs(hesitant: HesitantEngine, check: ReadinessCheck) -> None:
    """The answer is immediate until the trial is over or a synthesis fails, which is cause for doubt."""
    hesitant.let.set()
    assert (await check.check()).ready
    hesitant.let.clear()
    await grow_old(check, hesitant)
    for _ in range(3):
        assert (await asyncio.wait_for(check.check(), 0.1)).ready
        await asyncio.sleep(0)
    assert (hesitant.asked, hesitant.waiting) == (2, 1)
    check.doubt()
    assert (await check.check()).reason == "a trial synthesis is under way"


@pytest.mark.parametrize(
    ("error", "told"), [(EngineLost("it has gone"), "it has gone"), (ValueError("odd"), "an error of our own")]
)
async def test_failed_trial_says_why(
    hesitant: HesitantEngine, check: ReadinessCheck, error: Exception, told: str
) -> None:
    """Whatever a trial fails with ends readiness, also where nobody waited for it, and the next check tries anew."""
    hesitant.let.set()
    assert (await check.check()).ready
    hesitant.error = error
    await grow_old(check, hesitant)
    assert (await check.check()).ready
    await asyncio.sleep(0.1)
    verdict = await check.check()
    assert not verdict.ready
    assert told in (verdict.reason or "")
    hesitant.error = None
    assert (await check.check()).ready


async def test_speech_of_a_request_is_a_proof(hesitant: HesitantEngine, check: ReadinessCheck, tmp_path: Path) -> None:
    """After a real synthesis has given sound no trial is needed."""
    hesitant.let.set()
    library, close = open_library(
        hesitant, tmp_path, database_url=None, name="test", limit_bytes=0, wait_s=1, cache_bytes=0
    )
    speech = resolve(
        SpeechRequest(input="Hello."),
        capabilities=hesitant.capabilities,
        library=library.snapshot,
        max_text_chars=100,
    )
    assert [piece async for piece in Synthesis(hesitant, library, WorkerMetrics(hesitant), check).audio(speech)]
    close()
    assert (await check.check()).ready
    assert hesitant.asked == 1


async def test_lost_engine_is_told_at_once(hesitant: HesitantEngine, check: ReadinessCheck) -> None:
    """What is fatal is the reason, and no trial is made."""
    hesitant.fatal = "the GPU is gone"
    verdict = await asyncio.wait_for(check.check(), 0.1)
    assert (verdict.ready, verdict.reason, hesitant.asked) == (False, "the GPU is gone", 0)


@pytest.mark.parametrize(
    ("first_sound_s", "silent_s", "ready"), [(0.1, 1.9, True), (0.1, 2.1, False), (10, 49, True), (10, 51, False)]
)
async def test_busy_engine_is_taken_at_its_word_for_a_while(
    hesitant: HesitantEngine, first_sound_s: float, silent_s: float, ready: bool
) -> None:
    """How long a silence is believed to be work depends on how long the engine's first sound takes."""
    hesitant.first_sound_s, hesitant.silent_s, hesitant.waiting = first_sound_s, silent_s, 1
    assert (await asyncio.wait_for(ReadinessCheck(hesitant).check(), 0.1)).ready == ready


async def test_trial_ends_with_the_worker(hesitant: HesitantEngine, check: ReadinessCheck) -> None:
    """Closing stops a trial that is under way, for which nobody needs to wait."""
    waiting = asyncio.create_task(check.check())
    await asyncio.sleep(0.1)
    assert hesitant.waiting == 1
    await asyncio.wait_for(check.close(), 1)
    assert hesitant.waiting == 0
    assert not (await asyncio.wait_for(waiting, 0.1)).ready
