#!/usr/bin/env python3
"""Measure the fleet on this machine: start, time to first byte, the balancer's added latency, memory.

Run `.venv/bin/python scripts/bench_fleet.py`; it starts its own fleet, prints a table and writes
benchmarks/results/fleet-DATE.json. `--cold` also times a first start in an empty clone without any package cache.
Direct and balanced requests alternate within one run, since only their difference means something on a shared machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2
import psutil
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SHORT = "The quick brown fox jumps over the lazy dog."
PACKAGES = ("fastapi", "starlette", "uvicorn", "httpx2", "uvloop", "av", "espeakng-loader", "soxr")


@contextmanager
def running_fleet(root: Path, port: int, data: Path, environment: dict[str, str]) -> Iterator[tuple[int, float]]:
    """A fleet started by `scripts/up`: the supervisor's process id and the seconds until it said `ready`."""
    started_at = time.monotonic()
    command = [str(root / "scripts/up"), "--engine", "espeak", "--port", str(port), "--data", str(data)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert process.stdout is not None
    try:
        if not any(line.startswith("ready:") for line in process.stdout):
            raise SystemExit("the fleet did not start")
        yield process.pid, time.monotonic() - started_at
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def start_times(port: int, runs: int) -> list[float]:
    times = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as data, running_fleet(ROOT, port, Path(data), {}) as (_, seconds):
            times.append(seconds)
    return times


def cold_start(port: int) -> float:
    """Seconds from `scripts/up` in a fresh clone, its packages downloaded anew, to ready."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        empty = {"UV_CACHE_DIR": f"{folder}/uv", "PIP_NO_CACHE_DIR": "1"}
        with running_fleet(clone, port, Path(folder) / "data", empty) as (_, seconds):
            return seconds


async def first_byte_ms(client: httpx2.AsyncClient, url: str) -> float:
    """Milliseconds from sending one short request to its first body byte."""
    body = {"input": SHORT, "response_format": "pcm"}
    started_at = time.perf_counter()
    async with client.stream("POST", f"{url}/v1/audio/speech", json=body) as answer:
        pieces = answer.aiter_raw()
        await anext(pieces)
        elapsed = time.perf_counter() - started_at
        async for _ in pieces:
            pass
    return elapsed * 1000


async def added_latency(direct: list[str], balanced: str, *, pairs: int, concurrency: int) -> dict[str, Any]:
    """First-byte times direct and through the balancer, each direct request beside a balanced one."""
    times: dict[str, list[float]] = {"direct": [], "balanced": []}
    async with httpx2.AsyncClient(timeout=60, trust_env=False) as client:

        async def lane(number: int) -> None:
            for n in range(pairs // concurrency):
                ways = [("direct", direct[(number + n) % len(direct)]), ("balanced", balanced)]
                for way, url in ways if n % 2 else reversed(ways):
                    times[way].append(await first_byte_ms(client, url))

        await asyncio.gather(*(first_byte_ms(client, url) for url in (*direct, balanced) for _ in range(3)))
        await asyncio.gather(*(lane(number) for number in range(concurrency)))
    differences = [b - d for d, b in zip(times["direct"], times["balanced"], strict=True)]
    return {
        "concurrency": concurrency,
        "pairs": len(differences),
        "direct_ms": percentiles(times["direct"]),
        "balanced_ms": percentiles(times["balanced"]),
        "added_ms_median_of_pairs": round(statistics.median(differences), 3),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49], 3), "p90": round(cuts[89], 3), "p99": round(cuts[98], 3)}


def memory(supervisor: int) -> dict[str, dict[str, float]]:
    """MiB of each process: resident, and its proportional share of what is shared."""
    found: dict[str, dict[str, float]] = {}
    parent = psutil.Process(supervisor)
    for process in (parent, *parent.children(recursive=True)):
        command = " ".join(process.cmdline())
        kind = next((name for name in ("speaker.py", "fleet.up", "workers", "balancer") if name in command), "other")
        full = process.memory_full_info()
        name = f"{kind} {sum(key.startswith(kind) for key in found)}"
        found[name] = {"rss_mib": round(full.rss / 2**20, 1), "pss_mib": round(full.pss / 2**20, 1)}
    return found


async def measure(port: int, supervisor: int, pairs: int) -> dict[str, Any]:
    balanced = f"http://127.0.0.1:{port}"
    direct = [worker["url"] for worker in httpx2.get(f"{balanced}/stats", trust_env=False).json()["workers"]]
    fresh = memory(supervisor)
    latency = [await added_latency(direct, balanced, pairs=pairs, concurrency=n) for n in (1, 20)]
    return {"latency": latency, "memory_fresh": fresh, "memory_after_load": memory(supervisor)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=6595)
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of requests at each concurrency")
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--cold", action="store_true", help="also time a first start, with everything downloaded")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": f"scripts/bench_fleet.py --pairs {options.pairs} --starts {options.starts}"
        + (" --cold" if options.cold else ""),
        "commit": subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "hardware": {"cpu": cpu_name(), "cores": os.cpu_count(), "memory_gib": psutil.virtual_memory().total >> 30},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
    }
    if options.cold:
        result["start_cold_s"] = round(cold_start(options.port), 2)
    result["start_warm_s"] = [round(seconds, 2) for seconds in start_times(options.port, options.starts)]
    data = Path(tempfile.mkdtemp())
    try:
        with running_fleet(ROOT, options.port, data, {}) as (supervisor, _):
            result |= asyncio.run(measure(options.port, supervisor, options.pairs))
    finally:
        shutil.rmtree(data)
    target = ROOT / "benchmarks/results" / f"fleet-{result['date'][:10]}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    show(result, target)


def cpu_name() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


def show(result: dict[str, Any], target: Path) -> None:
    table = Table("figure", "value")
    if "start_cold_s" in result:
        table.add_row("first start, all downloaded", f"{result['start_cold_s']} s")
    table.add_row(
        "start to ready", f"{statistics.median(result['start_warm_s'])} s (median of {result['start_warm_s']})"
    )
    for run in result["latency"]:
        name = f"first byte, {run['concurrency']} at once"
        table.add_row(f"{name}, direct", str(run["direct_ms"]))
        table.add_row(f"{name}, balanced", str(run["balanced_ms"]))
        table.add_row(f"{name}, added", f"{run['added_ms_median_of_pairs']} ms (median of {run['pairs']} pairs)")
    for name, use in result["memory_after_load"].items():
        table.add_row(f"memory of {name}", f"{use['pss_mib']} MiB ({use['rss_mib']} resident)")
    Console().print(table)
    print(f"wrote {target.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
