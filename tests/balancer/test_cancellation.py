"""A caller that leaves frees what it held, wherever it leaves."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import urlencode

import httpx2
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.running import RunningFleet, in_flight, jobs, wait_for

TEXT = "The quick brown fox jumps over the lazy dog. " * 200


def open_request(port: int, text: str = TEXT, *, headers: str = "") -> socket.socket:
    body = json.dumps({"input": text, "response_format": "pcm"}).encode()
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.sendall(
        b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"%scontent-length: %d\r\n\r\n" % (headers.encode(), len(body)) + body
    )
    return connection


def worker_ports(fleet: RunningFleet) -> list[int]:
    return [int(url.rsplit(":", 1)[1]) for url in fleet.worker_urls()]


def test_caller_gone_in_mid_stream_frees_everything(fleet: RunningFleet) -> None:
    """Within a second no request is in flight and no job is running, at a worker and through the balancer."""
    for port in (fleet.port, worker_ports(fleet)[0]):
        connection = open_request(port)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.close()
        wait_for(lambda: in_flight(fleet) == 0, 1.0)


def test_caller_gone_before_headers_frees_everything(fleet: RunningFleet) -> None:
    """Twenty callers that leave at once, most of them before their answer began, leave nothing behind."""
    for port in (fleet.port, worker_ports(fleet)[0]):
        for connection in [open_request(port) for _ in range(20)]:
            connection.close()
        wait_for(lambda: in_flight(fleet) == 0, 1.0)


@pytest.mark.parametrize("when", ["before headers", "in mid-stream"])
@pytest.mark.parametrize(
    ("method", "path", "fields"),
    [
        ("POST", "/v1/audio/speech", {"input": TEXT, "stream_format": "sse"}),
        ("POST", "/synthesize", {"text": TEXT}),
        ("POST", "/synthesize/stream", {"text": TEXT}),
        ("POST", "/generate", {"text": TEXT}),
        ("POST", "/emotions/calm/test", {"text": TEXT}),
        ("POST", "/tts", {"text": TEXT}),
        ("GET", "/tts-stream", {"text": TEXT}),
    ],
)
def test_every_route_frees_the_engine_within_a_second(
    fleet: RunningFleet, method: str, path: str, fields: dict[str, str], when: str
) -> None:
    """Whatever the route, the caller leaves and nothing is spoken for him any more."""
    for port in (fleet.port, worker_ports(fleet)[0]):
        target, body = path, json.dumps(fields).encode()
        if method == "GET":
            target, body = f"{path}?{urlencode(fields)}", b""
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        head = f"{method} {target} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        wait_for(lambda: in_flight(fleet) > 0, 5, 0.005)
        if when == "in mid-stream" and path != "/generate":
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        connection.close()
        wait_for(lambda: in_flight(fleet) == 0, 1.0)


def test_caller_gone_in_mid_stream_is_called_so_in_the_log(fleet: RunningFleet) -> None:
    """By the balancer and by the worker, whatever they were doing for him: neither a success nor an error of ours."""

    def outcomes() -> list[str]:
        lines = [line for path in (fleet.data / "logs").glob("*.log") for line in path.read_text().splitlines()]
        entries = [json.loads(line) for line in lines if "gone-in-the-log" in line]
        return [entry["outcome"] for entry in entries if entry["event"] == "request"]

    with open_request(fleet.port, headers="x-request-id: gone-in-the-log\r\n") as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
    wait_for(lambda: len(outcomes()) == 2, 2.0)
    assert outcomes() == ["client_gone", "client_gone"]


def test_slow_reader_holds_bounded_memory(fleet: RunningFleet) -> None:
    """Readers that stop reading hold their jobs back instead of filling the server with sound."""
    before = _memory(fleet)
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(open_request(fleet.port))
        wait_for(lambda: _jobs_of_all(fleet) == (0, 10), 20)
        assert _memory(fleet) - before < 150 * 2**20
    wait_for(lambda: in_flight(fleet) == 0, 2.0)


def test_descriptors_return_to_their_baseline(fleet: RunningFleet) -> None:
    """After a hundred callers have come and gone, no process holds more descriptors than before."""

    def descriptors() -> int:
        return sum(_of_living(process, psutil.Process.num_fds) for process in fleet.descendants())

    open_request(fleet.port).close()
    wait_for(lambda: in_flight(fleet) == 0, 2.0)
    before = descriptors()
    for _ in range(100):
        open_request(fleet.port, "Hi.").close()
    wait_for(lambda: in_flight(fleet) == 0, 5.0)
    wait_for(lambda: descriptors() <= before + 4, 30.0)


def _jobs_of_all(fleet: RunningFleet) -> tuple[int, int]:
    """Running and queued jobs of the whole fleet."""
    running, queued = zip(*(jobs(url) for url in fleet.worker_urls()), strict=True)
    return sum(running), sum(queued)


def _memory(fleet: RunningFleet) -> int:
    return sum(_of_living(process, lambda living: living.memory_info().rss) for process in fleet.descendants())


def _of_living(process: psutil.Process, figure: Callable[[psutil.Process], int]) -> int:
    """0 for one that has just ended: each turn of speech is spoken in a process of its own."""
    try:
        return figure(process)
    except psutil.NoSuchProcess:
        return 0


def test_caller_gone_in_its_body_is_no_failure_and_no_success(fleet: RunningFleet) -> None:
    """Half a body and a close are counted as a caller gone, not as a request served or an error of ours."""

    def gone() -> float:
        families = text_string_to_metric_families(httpx2.get(f"{fleet.url}/metrics", trust_env=False).text)
        samples = [
            sample for family in families for sample in family.samples if sample.name == "balancer_requests_total"
        ]
        return sum(sample.value for sample in samples if sample.labels["outcome"] == "client_gone")

    before, failures = gone(), fleet.stats().totals.failures
    with socket.create_connection(("127.0.0.1", fleet.port)) as connection:
        connection.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
    wait_for(lambda: gone() == before + 1, 5)
    assert fleet.stats().totals.failures == failures
