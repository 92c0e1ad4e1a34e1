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
from tests.running import RunningBalancer, RunningTone, RunningWorker, free_port, wait_for

SPEECH = "/v1/audio/speech"
TEXT = "The quick brown fox jumps over the lazy dog. " * 60


def ask(balancer: RunningBalancer, timeout_s: float = 20, **fields: object) -> httpx2.Response:
    """One request of the tone workers; `fields` are of its body, headers go by `headers`."""
    headers = fields.pop("headers", None)
    assert headers is None or isinstance(headers, dict)
    body = {"input": "hi", "response_format": "pcm", **fields}
    return httpx2.post(balancer.url + SPEECH, json=body, headers=headers, trust_env=False, timeout=timeout_s)


def open_stream(balancer: RunningBalancer, head: str = "", **tone: float) -> socket.socket:
    body = json.dumps({"input": "hi", "response_format": "pcm", "tone": tone}).encode()
    connection = socket.create_connection(("127.0.0.1", balancer.port), timeout=20)
    lines = f"POST {SPEECH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{head}"
    connection.sendall(f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def whole_answer(connection: socket.socket) -> bytes:
    """All that comes until the end of the connection or of a chunked body."""
    got = b""
    while not got.endswith(b"0\r\n\r\n") and (piece := connection.recv(65536)):
        got += piece
    return got


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


@pytest.mark.parametrize("where", ["queue", "first byte", "mid-stream"])
def test_deadline_of_a_request_is_kept_everywhere(stack: ExitStack, where: str) -> None:
    """`X-Request-Timeout` ends it in the queue, before its first byte and between chunks; all it held is free."""
    worker = stack.enter_context(RunningTone(slots=1, audio_s=0.1))
    balancer = stack.enter_context(RunningBalancer(worker.url))
    balancer.wait_ready(1)
    if where == "queue":
        stack.enter_context(open_stream(balancer, audio_s=20)).recv(100)
    began_at = time.monotonic()
    tone = {"first byte": {"first_byte_ms": 20_000}, "mid-stream": {"audio_s": 20}}.get(where, {})
    connection = stack.enter_context(open_stream(balancer, "x-request-timeout: 0.7\r\n", **tone))
    answer = whole_answer(connection)
    assert 0.5 < time.monotonic() - began_at < 3
    if where == "mid-stream":
        assert answer.startswith(b"HTTP/1.1 200")
        assert not answer.endswith(b"0\r\n\r\n")
    else:
        assert answer.startswith(b"HTTP/1.1 504")
        assert b'"deadline_exceeded"' in answer
    stack.close()


def test_worker_keeps_the_deadline_it_is_told_too(stack: ExitStack) -> None:
    """Without a balancer as well; a limit that is none is refused with the header's name."""
    worker = stack.enter_context(RunningWorker(free_port(0)))
    body = {"input": TEXT, "response_format": "pcm", "speed": 0.25}
    for told, status in (("soon", 422), ("-1", 422), ("inf", 422), ("0.000001", 504)):
        answer = httpx2.post(
            worker.url + SPEECH, json=body, headers={"x-request-timeout": told}, trust_env=False, timeout=20
        )
        assert answer.status_code == status, told
        if status == 422:
            assert answer.json()["error"]["param"] == "X-Request-Timeout"
    wait_for(lambda: httpx2.get(f"{worker.url}/health", trust_env=False).json()["running_jobs"] == 0, 1.0)


def test_five_hundred_at_once_are_all_answered(stack: ExitStack) -> None:
    """As many as four workers and the queue hold are spoken, the others are 429 with Retry-After; nothing stays."""
    flags = {"slots": 4, "audio_s": 0.1, "first_byte_ms": 40, "pace": 0}
    workers = [stack.enter_context(RunningTone(f"tone-{n}", **flags)) for n in range(4)]
    balancer = stack.enter_context(RunningBalancer(*(worker.url for worker in workers), max_queue=200))
    balancer.wait_ready(4)
    process = psutil.Process(balancer.process.pid)
    before = process.memory_info().rss
    connections = [stack.enter_context(open_stream(balancer)) for _ in range(500)]
    statuses: dict[bytes, int] = {}
    for connection in connections:
        answer = whole_answer(connection)
        statuses[answer[9:12]] = statuses.get(answer[9:12], 0) + 1
        assert answer.startswith(b"HTTP/1.1 200") or b"retry-after: " in answer
    assert statuses.keys() <= {b"200", b"429"}
    assert statuses[b"200"] >= 216
    assert process.memory_info().rss - before < 100 * 2**20
    balancer.wait_idle()


def test_caller_that_leaves_the_queue_frees_its_place_in_it(stack: ExitStack) -> None:
    """Within a second, and whoever is behind him is served."""
    worker = stack.enter_context(RunningTone(slots=1, max_jobs=1))
    balancer = stack.enter_context(RunningBalancer(worker.url))
    balancer.wait_ready(1)
    first = stack.enter_context(open_stream(balancer, audio_s=30))
    assert first.recv(100).startswith(b"HTTP/1.1 200")
    leavers = [open_stream(balancer, audio_s=30) for _ in range(5)]
    wait_for(lambda: balancer.stats().totals.waiting["interactive"] == 5)
    last = stack.enter_context(open_stream(balancer, audio_s=0.2))
    wait_for(lambda: balancer.stats().totals.waiting["interactive"] == 6)
    for leaver in leavers:
        leaver.close()
    wait_for(lambda: balancer.stats().totals.waiting["interactive"] == 1, 1.0)
    first.close()
    assert whole_answer(last).startswith(b"HTTP/1.1 200")
    balancer.wait_idle()


def test_reader_that_takes_nothing_is_let_go(stack: ExitStack) -> None:
    """After the write timeout its stream is cut and its place is free, though it never closed."""
    worker = stack.enter_context(RunningTone(pace=0, audio_s=3600))
    balancer = stack.enter_context(RunningBalancer(worker.url, write_timeout_s=0.5))
    balancer.wait_ready(1)
    stack.enter_context(open_stream(balancer))
    wait_for(lambda: balancer.stats().totals.in_flight == 1)
    balancer.wait_idle(5)
    assert balancer.stats().totals.failures == 1


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
