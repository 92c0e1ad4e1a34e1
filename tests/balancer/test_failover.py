"""What callers see when a worker fails: nothing until the first sound, an honest truncation after it."""

from __future__ import annotations

import socket

import httpx2
import pytest

from tests.balancer import faulty
from tests.running import RunningBalancer, RunningFleet, RunningWorker, free_port, wait_for

SPEECH = "/v1/audio/speech"
BODY = {"input": "Hello there.", "response_format": "pcm"}


@pytest.fixture(scope="module")
def real_worker(fleet: RunningFleet) -> str:
    return fleet.worker_urls()[0]


@pytest.fixture(scope="module")
def expected(real_worker: str) -> bytes:
    return httpx2.post(real_worker + SPEECH, json=BODY, trust_env=False).content


def ask(balancer: RunningBalancer) -> httpx2.Response:
    return httpx2.post(balancer.url + SPEECH, json=BODY, trust_env=False, timeout=20)


@pytest.mark.parametrize(
    "fault",
    [
        faulty.close_before_headers,
        faulty.close_after_headers,
        faulty.never_answer,
        faulty.answer_full,
        faulty.answer_garbage,
    ],
)
def test_worker_lost_before_its_first_chunk_is_replaced(fault: faulty.Fault, real_worker: str, expected: bytes) -> None:
    """However a worker fails before it gave sound, the caller hears the whole text from another."""
    with (
        faulty.FaultyWorker(fault) as bad,
        RunningBalancer(bad.url, real_worker, idle_timeout_s=1) as balancer,
    ):
        balancer.wait_ready(2)
        for _ in range(4):
            answer = ask(balancer)
            assert (answer.status_code, answer.content) == (200, expected)
        # One that has said it is full is left alone for a second.
        assert bad.posts == 2 or (fault is faulty.answer_full and bad.posts == 1)
        stats = balancer.stats()
        assert (stats.totals.retries, stats.totals.failures, stats.totals.in_flight) == (bad.posts, 0, 0)


def test_worker_lost_in_mid_stream_cuts_the_answer_short(real_worker: str) -> None:
    """After the first chunk nothing is replayed: the body breaks off so that the caller can tell, and it is counted."""
    with faulty.FaultyWorker(faulty.close_mid_stream) as bad, RunningBalancer(bad.url, real_worker) as balancer:
        balancer.wait_ready(2)
        with pytest.raises(httpx2.RemoteProtocolError):
            ask(balancer)
        assert bad.posts == 1
        wait_for(lambda: balancer.stats().totals.failures == 1)
        assert (balancer.stats().totals.in_flight, balancer.stats().totals.retries) == (0, 0)
        assert ask(balancer).status_code == 200


def test_last_workers_own_refusal_is_passed_on() -> None:
    """When no other worker is left to try, the caller gets the worker's own words and its Retry-After."""
    with faulty.FaultyWorker(faulty.answer_full) as bad, RunningBalancer(bad.url) as balancer:
        balancer.wait_ready(1)
        answer = ask(balancer)
        assert (answer.status_code, answer.headers["retry-after"], bad.posts) == (429, "7", 1)


def test_worker_that_has_no_room_for_something_else_still_speaks() -> None:
    """That too many files wait to be encoded says nothing of its places for speech."""
    pcm = {"content-type": "audio/pcm"}
    with faulty.FaultyWorker(faulty.answer_full) as bad, RunningBalancer(bad.url, max_queue=0) as balancer:
        balancer.wait_ready(1)
        encode = httpx2.post(balancer.url + "/encode?format=mp3", content=b"abcd", headers=pcm, trust_env=False)
        assert (encode.status_code, encode.headers["retry-after"], bad.posts) == (429, "7", 1)
        assert (ask(balancer).headers["retry-after"], bad.posts) == ("7", 2)


def test_no_worker_at_all_is_a_fast_503_and_heals_by_itself() -> None:
    """Without workers the answer is an immediate 503 with Retry-After; when one appears, requests succeed."""
    port = free_port(0)
    with RunningBalancer(f"http://127.0.0.1:{port}") as balancer:
        answer = ask(balancer)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.elapsed.total_seconds() < 0.5
        assert httpx2.get(balancer.url + "/ready", trust_env=False).status_code == 503
        with RunningWorker(port):
            balancer.wait_ready(1)
            assert ask(balancer).status_code == 200


def test_half_open_worker_is_ejected_by_its_probes(real_worker: str) -> None:
    """A worker that accepts connections and never answers is never ready, and no request goes there."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with RunningBalancer(url, real_worker, probe_timeout_s=0.3) as balancer:
            balancer.wait_ready(1)
            wait_for(lambda: "timed out" in (balancer.stats().workers[0].reason or ""))
            assert {ask(balancer).headers["x-worker"] for _ in range(4)} == {"worker-0"}


def test_round_robin_takes_each_worker_in_its_turn(fleet: RunningFleet) -> None:
    """Requests alternate over the ready workers."""
    with RunningBalancer(*fleet.worker_urls()) as balancer:
        balancer.wait_ready(2)
        served = [ask(balancer).headers["x-worker"] for _ in range(6)]
        assert served in (["worker-0", "worker-1"] * 3, ["worker-1", "worker-0"] * 3)


def test_what_every_worker_would_answer_is_passed_on_and_blames_none() -> None:
    """A voice that is being prepared is pending everywhere: one worker is asked, and none is ejected for it."""
    with (
        faulty.FaultyWorker(faulty.answer_pending) as one,
        faulty.FaultyWorker(faulty.answer_pending) as two,
        RunningBalancer(one.url, two.url) as balancer,
    ):
        balancer.wait_ready(2)
        for _ in range(12):
            answer = ask(balancer)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "voice_pending")
            assert answer.headers["retry-after"] == "3"
        assert one.posts + two.posts == 12
        assert balancer.states() == ["ready", "ready"]
