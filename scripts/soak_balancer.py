#!/usr/bin/env python3
"""Let the balancer run under load while its workers are killed and restarted, and see whether it stays as it was.

`scripts/soak_balancer.py` starts tone workers and the balancer over them, asks for speech of mixed length at a steady
rate, kills one worker in turn every `--kill-every` seconds and restarts all of them, drained one by one, every
`--roll-every`. Some callers leave early, some read slowly. It prints a table, writes
benchmarks/results/soak-DATE.json, and ends with 1 if

- a request failed before its body began, other than by a 429 that said when to come again;
- anything was in flight or waiting at the end;
- the balancer's memory had grown by more than 20 MiB since the first third.

`--minutes 2` is the short form of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from bench_fleet import ROOT
from bench_processes import HTTP, NotStarted, Processes, Way, idle_again, stats
from bench_proxies import balancer, start_tones, surroundings
from soak_load import LEAVE, LENGTHS_S, SLOW, Outcomes, load
from soak_trouble import Trouble

LEAST_WORKERS = 3
"""One may be drained while another is killed."""
MOST_GROWTH_MIB = 20
MOST_POINTS = 200
_LOOK_EVERY_S = 5.0
_LEAST_LOOKS = 12
_IDLE_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Point:
    """The balancer at one moment. `loop_lag_ms` is the longest of the 10 s before."""

    at_s: float
    rss_mib: float
    descriptors: int
    in_flight: int
    waiting: int
    ready: int
    loop_lag_ms: float


class Watch:
    """Looks at the balancer, at first and then each `every_s` seconds until it is cancelled."""

    def __init__(self, way: Way, every_s: float) -> None:
        self.points: list[Point] = []
        self._way, self._every_s, self._began_at = way, every_s, time.monotonic()

    async def run(self) -> None:
        while True:
            await asyncio.to_thread(self.look)
            await asyncio.sleep(self._every_s)

    def look(self) -> Point:
        told, metrics = stats(self._way)["totals"], HTTP.get(f"{self._way.url}/metrics").text
        lag = re.search(r"^balancer_loop_lag_seconds (\S+)", metrics, re.MULTILINE)
        assert lag is not None
        point = Point(
            at_s=round(time.monotonic() - self._began_at, 1),
            rss_mib=self._way.rss_mib(),
            descriptors=self._way.process.num_fds(),
            in_flight=told["in_flight"],
            waiting=sum(told["waiting"].values()),
            ready=told["ready"],
            loop_lag_ms=round(1000 * float(lag[1]), 1),
        )
        self.points.append(point)
        return point


async def soak(options: argparse.Namespace, tones: Processes, way: Way) -> dict[str, Any]:
    """The whole run: what was done, how it was borne, and the series."""
    seconds = 60 * options.minutes
    over, outcomes = asyncio.Event(), Outcomes()
    trouble, watch = Trouble(tones, way, over), Watch(way, min(_LOOK_EVERY_S, seconds / _LEAST_LOOKS))
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run())
        for task in (trouble.kill_in_turn(options.kill_every), trouble.roll(options.roll_every)):
            group.create_task(task)
        await load(way.port, options.rate, seconds, outcomes, over)
        watching.cancel()
    idle_after_s = await asyncio.to_thread(idle_again, way, _IDLE_LIMIT_S)
    last = await asyncio.to_thread(watch.look)
    third = next(point for point in watch.points if point.at_s >= seconds / 3)
    totals = stats(way)["totals"]
    return {
        "kills": trouble.kills,
        "restarts": trouble.restarts,
        "outcomes": outcomes.told(),
        "balancer": {name: totals[name] for name in ("requests", "failures", "retries", "ejections")},
        "idle_after_s": idle_after_s,
        "in_flight_at_end": last.in_flight,
        "waiting_at_end": last.waiting,
        "rss_mib": {"first": watch.points[0].rss_mib, "third": third.rss_mib, "end": last.rss_mib},
        "descriptors": {"first": watch.points[0].descriptors, "third": third.descriptors, "end": last.descriptors},
        "loop_lag_ms_max": max(point.loop_lag_ms for point in watch.points),
        "waiting_max": max(point.waiting for point in watch.points),
        "series": [asdict(point) for point in thinned(watch.points)],
    }


def thinned(points: list[Point]) -> list[Point]:
    """At most `MOST_POINTS` of them at even distances, the last one among them."""
    step = -(-len(points) // MOST_POINTS)
    return points[::-1][::step][::-1]


def faults(found: dict[str, Any]) -> list[str]:
    """What must not be; empty of a good run."""
    said = [f"failed before the body began: {reason} x {n}" for reason, n in found["outcomes"]["failed"].items()]
    said += [f"{name}: {found[name]}" for name in ("in_flight_at_end", "waiting_at_end") if found[name]]
    grown = found["rss_mib"]["end"] - found["rss_mib"]["third"]
    if grown > MOST_GROWTH_MIB:
        said.append(f"memory grew by {grown:.1f} MiB after the first third")
    return said


def show(found: dict[str, Any]) -> None:
    table = Table("soak", "")
    for name, value in found.items():
        if name != "series":
            told = json.dumps(value).strip("{}[]").replace('"', "")
            table.add_row(name, told)
    Console(width=max(120, Console().width)).print(table)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=10.0, metavar="N", help="%(default)s")
    add("--rate", type=float, default=20.0, metavar="N", help="requests a second; %(default)s")
    add("--workers", type=int, default=4, metavar="N", help=f"at least {LEAST_WORKERS}; %(default)s")
    add("--slots", type=int, default=12, metavar="N", help="requests that a worker speaks at once; %(default)s")
    add("--kill-every", type=float, default=10.0, metavar="S", help="%(default)s")
    add("--roll-every", type=float, default=60.0, metavar="S", help="%(default)s")
    add("--tree", type=Path, default=ROOT, metavar="DIR", help="checkout whose balancer is run")
    add("--logs", type=Path, metavar="DIR", help="keep what all processes wrote here")
    add("--out", type=Path, metavar="PATH", help="benchmarks/results/soak-DATE.json")
    options = parser.parse_args()
    if options.workers < LEAST_WORKERS:
        parser.error(f"--workers must be at least {LEAST_WORKERS}: one may be drained while another is killed")
    return options


def run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    names = ("minutes", "rate", "workers", "slots", "kill_every", "roll_every")
    flags = " ".join(f"--{name.replace('_', '-')} {getattr(options, name):g}" for name in names)
    about = {"command": f"scripts/soak_balancer.py {flags}", **surroundings(options.tree)}
    with Processes(folder) as tones:
        start_tones(tones, options.workers, slots=options.slots, max_jobs=4096)
        with balancer(folder, tones.ways, options.tree, {}) as way:
            found = uvloop.run(soak(options, tones, way))
    mix = {"lengths_s": LENGTHS_S, "share_that_leaves": LEAVE, "share_that_reads_slowly": SLOW}
    return {**about, "load": mix, "faults": faults(found), **found}


def main() -> None:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what stops the children
    with tempfile.TemporaryDirectory() as unkept:
        try:
            result = run(options, options.logs or Path(unkept))
        except* NotStarted as errors:
            sys.exit(f"error: {errors.exceptions[0]}")
    show(result)
    target = options.out or ROOT / "benchmarks/results" / f"soak-{result['date'][:10]}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {target.name}")
    if result["faults"]:
        sys.exit("error: " + "; ".join(result["faults"]))


if __name__ == "__main__":
    main()
