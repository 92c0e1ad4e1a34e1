"""Faults of workers under a balancer, each with real processes; after each nothing is in flight or waiting."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx2
import psutil
import pytest

from tests.balancer import faulty
from tests.balancer.asking import SPEECH, TEXT, ask, open_stream, whole_answer
from tests.running import RunningBalancer, RunningTone, RunningWorker, free_port, wait_for


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


def test_killed_worker_cuts_a_stream_of_events_with_one_that_says_so(stack: ExitStack) -> None:
    """SIGKILL in mid-stream: server-sent events end with an `error` event, and nothing is replayed."""
    worker = stack.enter_context(RunningWorker(free_port(0)))
    balancer = stack.enter_context(RunningBalancer(worker.url))
    balancer.wait_ready(1)
    body = {"input": TEXT, "response_format": "pcm", "stream_format": "sse"}
    with httpx2.stream("POST", balancer.url + SPEECH, json=body, trust_env=False, timeout=20) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "event: speech.audio.delta"
        worker.kill()
        rest = [line for line in lines if line]
    assert rest[-2] == "event: error"
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "upstream_failed"
    balancer.wait_idle()
    stats = balancer.stats()
    assert (stats.totals.retries, stats.totals.failures) == (0, 1)
    balancer.wait_states("dead")


def test_stopped_worker_is_ejected_its_requests_move_and_it_comes_back(stack: ExitStack) -> None:
    """SIGSTOP: what had not begun is spoken by the other at once, what had is ended by its silence, probes eject it;
    after SIGCONT one request tries it, and it is ready.
    """
    stopped = stack.enter_context(RunningTone("stopped", first_byte_ms=300))
    other = stack.enter_context(RunningTone("other"))
    balancer = stack.enter_context(
        RunningBalancer(stopped.url, other.url, probe_interval_s=0.1, probe_timeout_s=0.4, idle_timeout_s=3)
    )
    balancer.wait_ready(2)
    begun = stack.enter_context(open_stream(balancer, audio_s=60, first_byte_ms=0))
    assert begun.recv(100).startswith(b"HTTP/1.1 200")
    stack.enter_context(open_stream(balancer, audio_s=0.2)).recv(10)
    waiting = stack.enter_context(open_stream(balancer, audio_s=0.2))
    wait_for(lambda: balancer.stats().workers[0].in_flight == 2)
    stopped.signal(signal.SIGSTOP)
    began_at = time.monotonic()
    answer = whole_answer(waiting)
    assert b"x-worker: other" in answer
    assert answer.endswith(b"0\r\n\r\n")
    assert time.monotonic() - began_at < 2.5, "its probes tell, not its silence"
    balancer.wait_states("ejected", "ready")
    assert not whole_answer(begun).endswith(b"0\r\n\r\n")
    balancer.wait_idle()
    stopped.signal(signal.SIGCONT)
    balancer.wait_states("half_open", "ready")
    assert {ask(balancer, tone={"audio_s": 0.2}).headers["x-worker"] for _ in range(2)} == {"stopped", "other"}
    balancer.wait_states("ready", "ready")
    balancer.wait_idle()


def test_slow_worker_gets_less_and_nothing_fails(stack: ExitStack) -> None:
    """Of two workers of one place, one ten times slower: its share falls, and every request is answered."""
    slow = stack.enter_context(RunningTone("slow", first_byte_ms=500, audio_s=0.1, pace=0))
    fast = stack.enter_context(RunningTone("fast", first_byte_ms=50, audio_s=0.1, pace=0))
    balancer = stack.enter_context(RunningBalancer(slow.url, fast.url, policy="least_outstanding"))
    balancer.wait_ready(2)
    with ThreadPoolExecutor(4) as callers:
        answers = list(callers.map(lambda _: ask(balancer), range(60)))
    assert {answer.status_code for answer in answers} == {200}
    by_slow = sum(answer.headers["x-worker"] == "slow" for answer in answers)
    assert 1 <= by_slow <= 20
    balancer.wait_idle()


def test_worker_that_keeps_failing_is_ejected_by_its_requests(stack: ExitStack) -> None:
    """Its probes are good, its answers are 502: after five it gets none any more until its time is over."""
    bad = stack.enter_context(faulty.FaultyWorker(faulty.answer_bad_gateway))
    good = stack.enter_context(RunningTone("good", audio_s=0.1, pace=0))
    balancer = stack.enter_context(
        RunningBalancer(bad.url, good.url, mixed_models=True, probe_interval_s=0.1, ejection_s=60)
    )
    balancer.wait_ready(2)
    answers = [ask(balancer, model=name) for name in [faulty.HEALTH.model] * 6]
    assert {answer.status_code for answer in answers[:5]} == {502}
    assert (answers[5].status_code, answers[5].headers["retry-after"]) == (503, "60")
    assert bad.posts == 5
    worker = balancer.stats().workers[0]
    assert (worker.state, worker.ejections) == ("ejected", 1)
    assert worker.reason is not None
    assert "5 requests failed in a row" in worker.reason
    assert ask(balancer, model="tone-1").status_code == 200
    balancer.wait_idle()


def test_balancer_that_is_told_to_stop_finishes_what_it_has(stack: ExitStack) -> None:
    """SIGTERM under load: streams are finished, and a new process is ready only when it has probed."""
    worker = stack.enter_context(RunningTone())
    balancer = stack.enter_context(RunningBalancer(worker.url))
    balancer.wait_ready(1)
    streams = [stack.enter_context(open_stream(balancer, audio_s=1.5)) for _ in range(10)]
    for stream in streams:
        assert stream.recv(20).startswith(b"HTTP/1.1 200")
    balancer.signal(signal.SIGTERM)
    assert all(whole_answer(stream).endswith(b"0\r\n\r\n") for stream in streams)
    assert balancer.process.wait(10) in (0, -signal.SIGTERM)
    balancer.start()
    wait_for(lambda: balancer._answers() if _listens(balancer.port) else False)
    balancer.wait_ready(1)
    assert ask(balancer, tone={"audio_s": 0.1}).status_code == 200


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_two_balancers_share_the_same_workers(stack: ExitStack, tmp_path: Path) -> None:
    """Each counts what the other has there, neither takes a busy worker for a dead one, and a worker that is drained
    through one is drained for both.
    """
    workers = [
        stack.enter_context(RunningWorker(free_port(0), name=f"worker-{n}", max_jobs=4, data_dir=tmp_path))
        for n in range(2)
    ]
    urls = [worker.url for worker in workers]
    one, two = (stack.enter_context(RunningBalancer(*urls, probe_interval_s=0.1)) for _ in range(2))
    for balancer in (one, two):
        balancer.wait_ready(2)
    with ThreadPoolExecutor(16) as callers:
        answers = list(callers.map(lambda n: ask((one, two)[n % 2], input="Hello there."), range(80)))
    assert {answer.status_code for answer in answers} == {200}
    drained = httpx2.post(f"{one.url}/workers/worker-0/drain", trust_env=False)
    assert (drained.status_code, drained.json()["state"]) == (200, "draining")
    two.wait_states("draining", "ready")
    assert {ask(two, input="Hi.").headers["x-worker"] for _ in range(4)} == {"worker-1"}
    httpx2.post(f"{two.url}/workers/worker-0/resume", trust_env=False).raise_for_status()
    for balancer in (one, two):
        balancer.wait_states("ready", "ready")
        balancer.wait_idle()


def test_descriptors_and_tasks_return_to_their_baseline(stack: ExitStack) -> None:
    """After a worker died again and again under load, the balancer holds what it held before."""
    tone = stack.enter_context(RunningTone(audio_s=0.4, chunk_ms=20))
    other = stack.enter_context(RunningTone("other", audio_s=0.4, chunk_ms=20))
    balancer = stack.enter_context(RunningBalancer(tone.url, other.url, probe_interval_s=0.1))
    balancer.wait_ready(2)
    process = psutil.Process(balancer.process.pid)
    ask(balancer)
    balancer.wait_idle()
    before = process.num_fds()
    over = threading.Event()

    def load() -> None:
        while not over.is_set():
            with suppress(httpx2.HTTPError):
                ask(balancer)

    with ThreadPoolExecutor(8) as callers:
        loads = [callers.submit(load) for _ in range(8)]
        for _ in range(3):
            time.sleep(0.5)
            tone.kill()
            tone.start()
            balancer.wait_ready(2)
        over.set()
        for running in loads:
            running.result()
    balancer.wait_idle()
    wait_for(lambda: process.num_fds() <= before + 20, 5)  # idle connections to two workers


def test_models_that_differ_on_purpose_are_one_fleet(stack: ExitStack, tmp_path: Path) -> None:
    """Each request goes to its model's worker, and the list names the models of all."""
    espeak = stack.enter_context(RunningWorker(free_port(0), name="espeak", data_dir=tmp_path))
    tone = stack.enter_context(RunningTone("tone"))
    refusing = stack.enter_context(RunningBalancer(espeak.url, tone.url, probe_interval_s=0.1))
    refusing.wait_ready(1)
    wait_for(lambda: "BALANCER_MIXED_MODELS" in str([worker.reason for worker in refusing.stats().workers]))
    balancer = stack.enter_context(RunningBalancer(espeak.url, tone.url, mixed_models=True, probe_interval_s=0.1))
    balancer.wait_ready(2)
    own = httpx2.get(f"{espeak.url}/v1/models", trust_env=False).json()["data"]
    listed = httpx2.get(f"{balancer.url}/v1/models", trust_env=False).json()["data"]
    assert listed == own, "a tone worker lists no models, and is left out"
    by_id = httpx2.get(f"{balancer.url}/v1/models/{own[0]['id']}", trust_env=False)
    assert (by_id.status_code, by_id.json()) == (200, own[0])
    assert httpx2.get(f"{balancer.url}/v1/models/none", trust_env=False).json()["error"]["code"] == "model_not_found"
    for model, name in (("tone-1", "tone"), ("tts-1", "espeak"), (own[0]["id"], "espeak")):
        assert [ask(balancer, model=model, tone={"audio_s": 0.1}).headers.get("x-worker") for _ in range(2)] == [
            name
        ] * 2


def test_what_changes_the_library_is_sent_once(stack: ExitStack) -> None:
    """A PUT or DELETE whose connection breaks is not sent again, neither to the same worker nor to another."""
    broken = stack.enter_context(faulty.FaultyWorker(faulty.close_before_headers, of={"PUT", "DELETE", "POST"}))
    balancer = stack.enter_context(RunningBalancer(broken.url))
    balancer.wait_ready(1)
    for count, (method, path) in enumerate([("PUT", "/emotions/calm"), ("DELETE", "/voices/x"), ("POST", "/emotions")]):
        answer = httpx2.request(method, balancer.url + path, json={"name": "x"}, trust_env=False)
        assert (answer.status_code, broken.posts) == (502, count + 1), method
