"""The bench of the balancer, run as its users run it, and the worker with a tone that it is measured over."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx2
import pytest

from tests.running import ROOT, free_port, jobs, wait_for
from tests.tools import require_tool

sys.path.insert(0, str(ROOT / "scripts"))

from bench_streams import OK, Heard, Lines, added, lateness
from tone import STAMP_BYTES, Tone

SPEECH = "/v1/audio/speech"


@contextmanager
def tone_worker(*flags: str) -> Iterator[str]:
    """Its address; it is to end well when told to."""
    port = free_port(0)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(ROOT / "scripts/tone_worker.py"), "--port", str(port), *flags]
    process = subprocess.Popen(command)

    def is_ready() -> bool:
        assert process.poll() is None
        try:
            return httpx2.get(f"{url}/ready", trust_env=False).status_code == 200
        except httpx2.ConnectError:
            return False

    try:
        wait_for(is_ready)
        yield url
    finally:
        process.terminate()
        assert process.wait(10) == 0


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20) as client:
        yield client


async def running_and_queued(url: str, wanted: tuple[int, int]) -> None:
    async with asyncio.timeout(10):
        while await asyncio.to_thread(jobs, url) != wanted:  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a short run of all parts writes; its burst is more than the workers take."""
    require_tool("haproxy")
    require_tool("nginx")
    target = tmp_path_factory.mktemp("bench") / "balancer.json"
    command = [sys.executable, str(ROOT / "scripts/bench_balancer.py"), "--quick", "--burst-max-jobs", "5"]
    flags = ["--settings", "max_attempts=2", "--out", str(target)]
    finished = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def test_latency_is_told_of_every_way(result: dict[str, Any]) -> None:
    """All streams are heard to their end; the others are compared with the direct ones."""
    ways = result["latency"]["ways"]
    assert list(ways) == ["direct", "balancer", "haproxy", "nginx"]
    for name, way in ways.items():
        assert way["outcomes"] == {OK: result["latency"]["lanes"]}
        for figure in ("first_byte_ms", "transit_ms"):
            assert 0 < way[figure]["p50"] <= way[figure]["p99"] <= way[figure]["max"] < 10_000
            assert (f"added_{figure}" in way) == (name != "direct")
    assert ways["balancer"]["added_first_byte_ms"].keys() == {"median", "p50", "p90", "p99"}


def test_live_streams_are_told_of_every_way(result: dict[str, Any]) -> None:
    """Each is heard to its end, and every chunk after the first one counts."""
    paced = result["paced"]
    assert list(paced["ways"]) == ["balancer", "haproxy", "nginx", "direct"]
    for way in paced["ways"].values():
        assert way["outcomes"] == {OK: paced["streams"]}
        assert way["chunks"] >= paced["streams"] * 5
        assert 0 <= way["share_late_over_10_ms"] <= way["share_late"] <= 1
        assert 0 <= way["streams_late_over_a_chunk"] <= paced["streams"]
        assert all(0 <= way[share] < 2 for share in ("cpu", "client_cpu", "workers_cpu"))
        assert way["chunks_per_s"] > 0
    assert paced["ways"]["balancer"]["cpu_us_per_chunk"] > 0


def test_held_streams_and_memory_are_told(result: dict[str, Any]) -> None:
    """Every stream is either held or told of; the balancer has nothing in flight after them."""
    held = result["held"]
    assert held["held"] + sum(held["others"].values()) == held["streams"]
    memory = held["rss_mib"]
    assert min(memory["before"], *memory["plateau"], memory["after"]) > 20
    assert held["idle_after_s"] is not None


def test_a_burst_is_answered_to_the_last(result: dict[str, Any]) -> None:
    """Every request has an outcome, and every refusal says when to come again."""
    burst = result["burst"]
    assert sum(burst["outcomes"].values()) == burst["requests"]
    assert burst["unanswered"] == 0
    assert burst["refused_with_retry_after"] == burst["refused"]
    assert burst["outcomes"][OK] >= burst["places"]
    assert burst["first_byte_ms"]["p50"] > 0


def test_it_says_what_was_measured_where(result: dict[str, Any]) -> None:
    """Command, machine and versions."""
    assert result["command"].startswith("scripts/bench_balancer.py --parts latency,paced,held,burst")
    assert "--settings max_attempts=2" in result["command"]
    assert {"python", "uvicorn", "starlette", "httpx2", "uvloop", "haproxy", "nginx"} <= result["versions"].keys()
    assert result["hardware"].keys() == {"cpu", "cores", "memory_gib"}
    assert {"date", "commit"} <= result.keys()


async def test_chunks_tell_when_they_were_written() -> None:
    """One after the other as they fall due, each stamped within the time that it was on its way."""
    tone = Tone(audio_s=0.3, chunk_ms=50, first_byte_ms=100)
    with tone_worker() as url:
        heard = await Lines(httpx2.URL(url).port or 0).hear(tone, Heard(), limit_s=10)
        async with asking(url) as client:
            answer = await client.post(SPEECH, json={"tone": {"audio_s": 1, "chunk_ms": 100, "pace": 0}})
            refused = await client.post(SPEECH, json={"tone": {"chunk_ms": "long"}})
    assert (heard.outcome, len(heard.arrivals)) == (OK, 6)
    assert heard.first_byte_s is not None
    assert heard.first_byte_s > 0.09
    assert all(0 < transit < 5 for transit in heard.transits)
    written = [at - transit for at, transit in zip(heard.arrivals, heard.transits, strict=True)]
    assert written[-1] - written[0] > 0.24
    size = Tone(chunk_ms=100).chunk_bytes
    assert (answer.headers["content-type"], len(answer.content)) == ("audio/pcm", 10 * size)
    stamps = [int.from_bytes(answer.content[start:][:STAMP_BYTES], "little") for start in range(0, 10 * size, size)]
    assert stamps == sorted(stamps)
    assert 0 < time.monotonic_ns() - stamps[0] < 20e9
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "invalid_value")


async def test_places_are_taken_in_turn_and_refused_beyond_the_queue() -> None:
    """One speaks, one waits, and a third is told to come again."""
    tone = {"tone": {"audio_s": 1, "chunk_ms": 100}}
    with tone_worker("--slots", "1", "--max-jobs", "2") as url:
        async with asking(url) as client:
            both = [asyncio.create_task(client.post(SPEECH, json=tone)) for _ in range(2)]
            await running_and_queued(url, (1, 1))
            third = await client.post(SPEECH, json=tone, headers={"x-request-id": "third"})
            contents = [(await answer).content for answer in both]
        await running_and_queued(url, (0, 0))
    assert (third.status_code, third.headers["retry-after"]) == (429, "1")
    assert third.json()["error"].items() >= {"code": "overloaded", "param": None, "request_id": "third"}.items()
    first, second = sorted(int.from_bytes(content[:STAMP_BYTES], "little") for content in contents)
    assert second - first > 0.85e9


async def test_a_listener_that_leaves_frees_its_place() -> None:
    """Speaking or waiting; an odd request or a second one on the same connection does no harm."""
    with tone_worker("--slots", "1", "--audio-s", "600") as url:
        port = httpx2.URL(url).port or 0
        lines = Lines(port)
        streams = [asyncio.create_task(lines.hear(Tone(audio_s=600), Heard(), limit_s=60)) for _ in range(3)]
        await running_and_queued(url, (1, 2))
        for stream in streams[:2]:
            stream.cancel()
        await running_and_queued(url, (1, 0))
        streams[2].cancel()
        await running_and_queued(url, (0, 0))

        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /ready HTTP/1.1\r\n\r\n" * 2 + b"nonsense\r\n\r\n")
        answers = await asyncio.wait_for(reader.read(), 10)
        assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"200", b"400"]
        writer.close()


def test_lateness_is_told_from_the_first_chunk_on() -> None:
    """A chunk that is early does not make up for a late one."""
    steady = Heard(outcome=OK, arrivals=[10.0, 10.1, 10.25, 10.3])
    stalled = Heard(outcome=OK, arrivals=[20.0, 20.0, 20.5])
    found = lateness([steady, stalled, Heard()], 0.125)
    assert (found["chunks"], found["streams_late_over_a_chunk"]) == (5, 1)
    assert (found["share_late"], found["share_late_over_10_ms"]) == (0.2, 0.2)
    assert found["late_ms"]["max"] == pytest.approx(250)


def test_what_a_way_adds_is_told_by_pairs() -> None:
    """Pairs of which one was not heard to its end do not count."""
    direct = [Heard(outcome=OK, first_byte_s=0.001 * n, transits=[0.001]) for n in (1, 2, 9)]
    through = [Heard(outcome=OK, first_byte_s=0.001 * n, transits=[0.003]) for n in (3, 4, 5)]
    through[2].outcome = "cut short"
    found = added(direct, through)
    assert found["added_first_byte_ms"]["median"] == pytest.approx(2)
    assert found["added_transit_ms"]["p50"] == pytest.approx(2)
