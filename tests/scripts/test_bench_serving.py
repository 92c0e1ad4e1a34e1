"""The benchmark over HTTP, run as its users run it, and the player that its gaps come from."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from tests.running import ROOT, RunningFleet, RunningWorker, free_port

sys.path.insert(0, str(ROOT / "scripts"))

from bench_load import BYTES_PER_S, TEXTS, Player, arrivals, listen, requests
from bench_workers import counted, flatness

from fleet.contract import WorkerHealth

TEXT = "Nobody knows the way."


def bench(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/bench_serving.py"), *flags]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def written(target: Path, *flags: str) -> dict[str, Any]:
    """What it writes."""
    finished = bench(*flags, "--out", str(target))
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(target.read_text())
    return found


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two closed loads and an open one on a worker of its own."""
    loads = ("--concurrency", "1,3", "--requests", "6", "--rate", "10", "--seconds", "1")
    target = tmp_path_factory.mktemp("bench") / "serving.json"
    return written(target, "--start", "--engine", "espeak", *loads, "--sample-every", "2", "--each")


def test_every_request_is_accounted_for(result: dict[str, Any]) -> None:
    """As many as the load says, all with sound, no two with the same seed."""
    due = list(arrivals(10, 1, seed=0))
    for load, sent in zip(result["loads"], (6, 6, len(due)), strict=True):
        assert (load["ok"], load["failed"], load["not_sent"]) == (sent, {}, 0)
        assert len(load["each"]) == sent
        assert all(heard["audio_s"] > 5 for heard in load["each"])
    seeds = [heard["seed"] for load in result["loads"] for heard in load["each"]]
    assert sorted(seeds) == list(range(1, len(seeds) + 1))  # 0 was the warm-up's


def test_figures_follow_from_the_requests(result: dict[str, Any]) -> None:
    """Percentiles, throughput and gaps are those of the requests written down beside them."""
    for load in result["loads"]:
        each = load["each"]
        assert all(0 < heard["ttfa_s"] <= heard["total_s"] <= load["seconds"] + 0.001 for heard in each)
        ttfa = [1000 * heard["ttfa_s"] for heard in each]
        assert load["ttfa_ms"]["p50"] == pytest.approx(np.median(ttfa), abs=0.001)
        assert load["ttfa_ms"]["p50"] <= load["ttfa_ms"]["p90"] <= load["ttfa_ms"]["p99"] <= max(ttfa) + 0.001
        rtf = [heard["total_s"] / heard["audio_s"] for heard in each]
        assert load["rtf"]["p50"] == pytest.approx(np.median(rtf), abs=0.001)
        assert load["audio_s"] == pytest.approx(sum(heard["audio_s"] for heard in each), abs=0.01)
        assert load["throughput"] == pytest.approx(load["audio_s"] / load["seconds"], rel=0.01)
        gaps = [gap for heard in each for gap in heard["gaps_s"]]
        assert load["dry"]["gaps"] == len(gaps)
        assert load["dry"]["seconds"] == pytest.approx(sum(gaps), abs=0.001)
        assert 0 < load["client_cpu"] < 1.5


def test_closed_loads_keep_so_many_in_flight(result: dict[str, Any]) -> None:
    """One after the other, or three lanes: together no busier than their number, and busier than one."""
    alone, three, _ = result["loads"]
    busy = [sum(heard["total_s"] for heard in load["each"]) / load["seconds"] for load in (alone, three)]
    assert 0.5 < busy[0] <= 1.01
    assert 1.5 < busy[1] <= 3.03


def test_memory_is_sampled_along_the_way(result: dict[str, Any]) -> None:
    """The worker's before and after, and again each time that two more requests have ended."""
    for load in result["loads"][:2]:
        (worker,) = load["workers"]
        assert min(worker["rss_mib"]) > 20
        assert "steps" not in worker  # espeak decodes no tokens
        samples = load["flatness"]["rss_mib"]
        assert [ended for ended, _ in samples] == [2, 4, 6]
        growth = 500 * (samples[2][1] - samples[1][1])
        assert load["flatness"]["growth_mib_per_1000"] == pytest.approx(growth, abs=0.01)


def test_it_says_what_was_measured_where(result: dict[str, Any]) -> None:
    """Command, settings, machine, versions and the worker, which is stopped at the end."""
    assert result["command"].startswith("scripts/bench_serving.py --start --engine espeak --concurrency 1,3")
    assert result["settings"]["texts"] == TEXTS
    assert result["settings"]["rate"] == [10.0]
    assert result["hardware"]["cores"] >= 1
    assert {"python", "httpx2", "fastapi"} <= result["versions"].keys()
    assert {"date", "commit", "environment"} <= result.keys()
    (worker,) = result["server"]["workers"]
    assert (result["server"]["role"], worker["engine"], worker["device"]) == ("worker", "espeak", "cpu")
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(result["server"]["url"], trust_env=False)


def test_a_fleet_is_measured_through_its_balancer(fleet: RunningFleet, tmp_path: Path) -> None:
    """The figures are of all its workers."""
    found = written(
        tmp_path / "fleet.json", "--url", fleet.url, "--requests", "4", "--text", TEXT, "--quality", "draft"
    )
    (load,) = found["loads"]
    assert found["server"]["role"] == "balancer"
    assert load["ok"] == 4
    assert len(load["workers"]) == 2
    assert "each" not in load


def test_what_fails_is_counted_by_its_code(tmp_path: Path) -> None:
    """A full worker's refusals are no sound, and do not stop the others; an open load sends no more than it may."""
    with RunningWorker(free_port(0), max_jobs=1) as worker:
        flags = ("--url", worker.url, "--text", " ".join(TEXTS))
        closed, opened = written(
            tmp_path / "full.json",
            *(*flags, "--concurrency", "6", "--requests", "24"),
            *("--rate", "200", "--seconds", "0.3", "--most-in-flight", "1"),
        )["loads"]
    assert set(closed["failed"]) == {"429 overloaded"}
    assert closed["ok"] > 0
    assert closed["ok"] + closed["failed"]["429 overloaded"] == 24
    assert opened["not_sent"] > 0
    assert opened["ok"] + sum(opened["failed"].values()) + opened["not_sent"] == len(list(arrivals(200, 0.3, seed=0)))


@pytest.mark.parametrize("url", ["http://192.0.2.1:6095", "http://127.0.0.1@example.com", "example.com"])
def test_load_on_other_machines_is_refused(url: str) -> None:
    """Unless it is allowed."""
    finished = bench("--url", url)
    assert finished.returncode == 2
    assert "--allow-remote" in finished.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--url", "http://127.0.0.1:9"), "nothing answers at http://127.0.0.1:9"),
        (("--start", "--engine", "espeak", "--voice", "nobody"), "404 voice_not_found"),
        (("--start", "--engine", "chatterbox", "--checkpoint", "nowhere"), "nowhere is not a directory"),
        (("--upstream", "1"), "--checkpoint"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(flags: tuple[str, ...], words: str) -> None:
    """An address where nobody is, a request that fails before the load, a worker that cannot start."""
    finished = bench(*flags)
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_upstream_is_measured_before_and_after(tmp_path: Path) -> None:
    """On the same checkpoint with the same limit; a load's ratio is to all of upstream's texts."""
    script = ROOT / "scripts/make_checkpoint.py"
    subprocess.run([sys.executable, str(script), str(tmp_path / "tiny"), "--size", "tiny"], check=True, timeout=120)
    model = ("--checkpoint", str(tmp_path / "tiny"), "--device", "cpu", "--max-tokens", "20", "--upstream", "1")
    found = written(tmp_path / "upstream.json", "--start", "--engine", "espeak", *model, "--text", TEXT)
    upstream = found["upstream"]
    rows = [row for half in upstream["halves"] for row in half["each"]]
    assert upstream["texts"] == len(rows) == 2
    assert all(0.2 < row["audio_s"] <= 20 / 25 for row in rows)  # 25 tokens a second; random ones may be no speech
    seconds, audio_s = (sum(row[name] for row in rows) for name in ("seconds", "audio_s"))
    assert upstream["throughput"] == pytest.approx(audio_s / seconds, rel=0.01)
    assert min(half["memory_mib"] for half in upstream["halves"]) > 100
    (load,) = found["loads"]
    assert load["ratio_aggregate"] == pytest.approx(load["throughput"] / upstream["throughput"], rel=0.01)


def test_a_player_runs_dry_when_sound_comes_late() -> None:
    """Silence lasts from the end of what was heard until more comes; sound that was early fills it."""
    player = Player()
    for at, seconds in ((10.0, 1.0), (10.5, 1.0), (12.25, 0.5), (12.5, 0.5), (14.0, 1.0)):
        player.hear(0, at)
        player.hear(int(seconds * BYTES_PER_S), at)
    assert player.first_at == 10.0
    assert player.gaps_s == [0.25, 0.75]
    assert player.size == 4 * BYTES_PER_S


@asynccontextmanager
async def slow_server(*pauses: float, whole: bool) -> AsyncIterator[str]:
    """Answers with a tenth of a second of sound after each pause; not whole, it breaks off."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for pause in pauses:
            await asyncio.sleep(pause)
            piece = bytes(BYTES_PER_S // 10)
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n" if whole else b"")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_gaps_are_heard_over_real_sockets() -> None:
    """Two pieces at once and one 0.3 s later, a tenth of a second after the first two were played."""
    async with slow_server(0.1, 0.0, 0.3, whole=True) as url, httpx2.AsyncClient(base_url=url) as client:
        heard = await listen(client, next(requests([TEXT], 7)), time.perf_counter())
    assert (heard.outcome, heard.seed) == ("ok", 7)
    assert heard.audio_s == pytest.approx(0.3)
    assert heard.ttfa_s is not None
    assert 0.1 <= heard.ttfa_s <= heard.total_s - 0.2
    assert sum(heard.gaps_s) == pytest.approx(heard.total_s - heard.ttfa_s - 0.2, abs=0.05)


async def test_a_stream_that_breaks_off_is_no_success() -> None:
    """The connection's error is the outcome."""
    async with slow_server(0.0, whole=False) as url, httpx2.AsyncClient(base_url=url) as client:
        heard = await listen(client, next(requests([TEXT], 0)), time.perf_counter())
    assert heard.outcome == "RemoteProtocolError"
    assert heard.message


def test_requests_carry_what_was_asked() -> None:
    """Texts in turn, a seed for each, and only the fields that were given."""
    found = requests(["One.", "Two."], 5, quality="draft", voice=None)
    asked = [next(found) for _ in range(3)]
    assert [(body["input"], body["seed"]) for body in asked] == [("One.", 5), ("Two.", 6), ("One.", 7)]
    assert all(body.keys() == {"input", "seed", "quality", "response_format"} for body in asked)


def test_arrivals_are_poissons_and_seeded() -> None:
    """As many as the rate says, with exponential gaps, the same for the same seed."""
    found = np.array(list(arrivals(50, 100, seed=1)))
    gaps = np.diff(found)
    assert len(found) == pytest.approx(5000, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)
    assert found.tolist() == list(arrivals(50, 100, seed=1))
    assert found.tolist() != list(arrivals(50, 100, seed=2))


def test_what_a_worker_counted_is_the_difference() -> None:
    """Between two answers of one process; a worker started anew is not compared with the one before it."""
    with RunningWorker(free_port(0), module="tests.workers.failing") as worker:
        health = WorkerHealth.model_validate_json(httpx2.get(f"{worker.url}/health", trust_env=False).content)
    health, figures = health.model_copy(update={"memory_bytes": 100 << 20}), health.figures
    assert figures is not None
    more = {"steps": 41, "step_rows": 162, "tokens": 83, "euler_steps": 16, "euler_rows": 37, "device_bytes": 2 << 20}
    later = health.model_copy(update={"memory_bytes": 120 << 20, "figures": figures.model_copy(update=more)})
    (row,) = counted([health], [later], 10.0)
    assert (row["steps"], row["tokens"], row["steps_per_s"]) == (40, 80, 4.0)
    assert (row["rows_per_step"], row["rows_per_euler_step"]) == (4.0, 3.0)
    assert (row["rss_mib"], row["device_mib"]) == ([100.0, 120.0], [0.0, 2.0])
    (new,) = counted([health], [later.model_copy(update={"pid": health.pid + 1})], 10.0)
    assert new == {"name": health.name, "rss_mib": [None, 120.0]}


def test_growth_is_that_of_the_second_half() -> None:
    """What is taken once, at the beginning, is no leak."""
    assert flatness([(200, 90.0), (100, 50.0), (400, 92.0), (300, 91.0)]) == {
        "rss_mib": [(100, 50.0), (200, 90.0), (300, 91.0), (400, 92.0)],
        "growth_mib_per_1000": 10.0,
    }
    assert flatness([(100, 50.0)]) is None
