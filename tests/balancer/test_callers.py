"""Callers with little time, too many of them, and such as leave or take nothing, under a balancer of real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import psutil
import pytest

from tests.balancer.asking import SPEECH, TEXT, open_stream, whole_answer
from tests.running import RunningBalancer, RunningTone, RunningWorker, free_port, wait_for


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


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
