#!/usr/bin/env python3
"""Measure speech over HTTP at given loads: time to first audio, speed, gaps in playing, memory.

`scripts/bench_serving.py --concurrency 1,8,64` asks the worker or balancer at `--url`; with `--start` it runs a worker
of its own, which takes its other settings (CHATTERBOX_*) from the environment. It prints a table and writes
benchmarks/results/serving-DEVICE-DATE.json. Every request asks for raw PCM, with a seed of its own.

A closed load keeps N requests in flight; an open one (`--rate`) sends them as a Poisson process does, whatever became
of those before, and its times run from when a request was due. `rtf` is a request's time over its sound, `throughput`
the sound of all over the time of the load. A stream runs dry when a player that began with its first byte has played
all before more comes. `client_cpu` is the share of one core that this program took: near 1, it measures itself.
`steps_per_s` is counted over the whole load, its beginning and end included. Upstream, with `--upstream`, is measured
before and after, since machines are shared, each time in a process of its own; `ratio_aggregate` is a load's throughput
over upstream's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import distributions
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx2
import psutil
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from bench_fleet import PACKAGES, ROOT, cpu_name
from bench_load import OK, Load, aggregate, listen, percentiles, requests
from bench_serving_options import parse_arguments
from bench_workers import Workers, counted, flatness, running_worker

from fleet.errors import FleetError, NotReady, SynthesisFailed
from fleet.startup_errors import ModelMissing, StartupError
from workers.engine.chatterbox.checkpoint import check_directory

MODEL_PACKAGES = ("torch", "triton", "numba", "numpy", "chatterbox-tts", "transformers", "safetensors")


def upstream_in_child(directory: Path, texts: list[str], **asked: Any) -> dict[str, Any]:
    from bench_upstream_speech import measure_upstream_speech  # noqa: PLC0415 - it loads torch and all of upstream

    return measure_upstream_speech(directory, texts, **asked)


def measure_upstream(options: argparse.Namespace) -> dict[str, Any]:
    """In a process that has ended, with its memory, when this returns."""
    if options.checkpoint is None:
        raise ModelMissing("--upstream needs a model: give its directory with --checkpoint")
    check_directory(directory := Path(options.checkpoint))
    texts = [options.texts[number % len(options.texts)] for number in range(options.upstream)]
    asked = {name: getattr(options, name) for name in ("device", "seed", "max_tokens", "cfg_weight")}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(upstream_in_child, directory, texts, **asked).result()
        except ModuleNotFoundError as problem:
            raise StartupError(f"upstream is not installed: there is no {problem.name}") from None
        except BrokenProcessPool:
            raise StartupError("upstream's process was killed, for want of memory perhaps") from None


def aggregate_upstream(halves: list[dict[str, Any]]) -> dict[str, Any]:
    """Of all texts; upstream hands nothing out before all is done, so a text's time is its time to first audio."""
    rows = [row for half in halves for row in half["each"]]
    throughputs = [
        sum(row["audio_s"] for row in each) / sum(row["seconds"] for row in each)
        for each in (rows, *(half["each"] for half in halves))
    ]
    return {
        "texts": len(rows),
        "ttfa_ms": percentiles([1000 * row["seconds"] for row in rows], 50, 90, 99),
        "rtf": percentiles([row["seconds"] / row["audio_s"] for row in rows], 50, 90),
        "throughput": round(throughputs[0], 3),
        "halves": [{"throughput": round(t, 3), **half} for t, half in zip(throughputs[1:], halves, strict=True)],
    }


async def measure(options: argparse.Namespace, url: str) -> dict[str, Any]:
    """Every load in turn. Raises `Unreachable`, `UpstreamFailed`, `NotReady`, or `SynthesisFailed` of a warm-up."""
    timeout, limits = httpx2.Timeout(options.timeout, connect=10, pool=None), httpx2.Limits()
    async with httpx2.AsyncClient(base_url=url, timeout=timeout, limits=limits, trust_env=False) as client:
        workers = await Workers.find(client)
        if not (health := await workers.health()):
            raise NotReady(f"no worker answers behind {url}")
        fields = {name: getattr(options, name) for name in ("quality", "voice", "cfg_weight")}
        bodies = requests(options.texts, options.seed, **fields)
        for body in islice(bodies, options.warm_up):
            if (heard := await listen(client, body, time.perf_counter())).outcome != OK:
                raise SynthesisFailed(f"a request before the first load failed: {heard.outcome}: {heard.message}")
        loads = []
        for asked in options.loads:
            load = Load(client, bodies, workers.look, every=options.sample_every)
            loads.append(await measure_load(load, asked, workers, options))
            print(named(asked), f"{loads[-1]['throughput']} x real time", file=sys.stderr, flush=True)
    told = ("name", "engine", "model", "device", "version")
    return {
        "server": {
            "url": url,
            "role": workers.role,
            "workers": [{name: getattr(worker, name) for name in told} for worker in health],
        },
        "loads": loads,
    }


async def measure_load(
    load: Load, asked: dict[str, Any], workers: Workers, options: argparse.Namespace
) -> dict[str, Any]:
    workers.rss_mib.clear()
    before, began, cpu = await workers.health(), time.perf_counter(), time.process_time()
    if "rate" in asked:
        await load.open(**asked, seed=options.seed)
    else:
        await load.closed(**asked)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {
        "load": asked,
        **aggregate(load),
        "client_cpu": round(cpu / seconds, 3),
        "flatness": flatness(workers.rss_mib),
        "workers": counted(before, await workers.health(), seconds),
        **({"each": [asdict(heard) for heard in load.heard]} if options.each else {}),
    }


def named(asked: dict[str, Any]) -> str:
    return f"{asked['rate']:g} a second" if "rate" in asked else f"{asked['concurrency']} in flight"


def described(options: argparse.Namespace) -> dict[str, Any]:
    """What is measured, where, and with which versions."""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    named = {*PACKAGES, *MODEL_PACKAGES}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["scripts/bench_serving.py", *sys.argv[1:]]),
        "commit": subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip() or None,
        "hardware": {"cpu": cpu_name(), "cores": os.cpu_count(), "memory_gib": psutil.virtual_memory().total >> 30},
        "versions": {"python": platform.python_version()}
        | {each.name: each.version for each in distributions() if each.name in named},
        "settings": {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()},
        "environment": {name: value for name, value in os.environ.items() if name.startswith("CHATTERBOX_")},
    }


def spoken(value: object) -> str:
    return " to ".join(map(str, value)) if isinstance(value, list) else str(value)


def show(result: dict[str, Any]) -> None:
    """A column for each load, and one for upstream before them."""
    loads = result["loads"]
    table = Table("", *(["upstream"] if result["upstream"] else []), *(named(load["load"]) for load in loads))

    def row(name: str, tell: Callable[[dict[str, Any]], object], *, of_upstream: bool = True) -> None:
        upstream = [str(tell(result["upstream"])) if of_upstream else ""] if result["upstream"] else []
        table.add_row(name, *upstream, *(str(tell(load)) for load in loads))

    def spread(name: str, digits: int) -> Callable[[dict[str, Any]], str]:
        return lambda load: " / ".join(f"{value:.{digits}f}" for value in (load[name] or {}).values())

    def of_workers(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda load: ", ".join(spoken(worker[name]) for worker in load["workers"] if name in worker)

    row("texts spoken", lambda load: load.get("ok", load.get("texts")))
    row("failed, not sent", lambda load: f"{sum(load['failed'].values())}, {load['not_sent']}", of_upstream=False)
    row("TTFA, ms: p50 / p90 / p99", spread("ttfa_ms", 0))
    row("RTF: p50 / p90", spread("rtf", 3))
    row("x real time", lambda load: load["throughput"])
    row("streams run dry", lambda load: f"{load['dry']['streams']} ({load['dry']['seconds']} s)", of_upstream=False)
    row("client's CPU", lambda load: load["client_cpu"], of_upstream=False)
    row("RSS, MiB", of_workers("rss_mib"), of_upstream=False)
    decoding = (("GPU, MiB", "device_mib"), ("decode steps/s", "steps_per_s"), ("rows a step", "rows_per_step"))
    for name, key in decoding:
        if any(key in worker for load in loads for worker in load["workers"]):
            row(name, of_workers(key), of_upstream=False)
    Console().print(table)
    for load in loads:
        if load["failed"]:
            print(f"{named(load['load'])}, failed: {load['failed']}")


def main() -> None:
    options = parse_arguments(__doc__)
    result = described(options)
    try:
        halves = [measure_upstream(options)] if options.upstream else []
        settings = {name: getattr(options, name) for name in ("engine", "device", "checkpoint", "max_tokens")}
        with running_worker(settings, options.logs) if options.start else nullcontext(options.url) as url:
            result |= asyncio.run(measure(options, url))
        if halves:
            halves.append(measure_upstream(options))
    except FleetError as problem:
        raise SystemExit(f"error: {problem.message}") from None
    result["upstream"] = aggregate_upstream(halves) if halves else None
    for load in result["loads"] if halves else ():
        load["ratio_aggregate"] = round(load["throughput"] / result["upstream"]["throughput"], 3)
    device = "cpu" if {worker["device"] for worker in result["server"]["workers"]} == {"cpu"} else "cuda"
    target: Path = options.out or ROOT / f"benchmarks/results/serving-{device}-{result['date'][:10]}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
