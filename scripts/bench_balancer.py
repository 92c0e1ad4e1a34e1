#!/usr/bin/env python3
"""Measure the balancer alone, over workers that speak a tone: latency it adds, live streams, memory, a burst.

`scripts/bench_balancer.py` starts tone workers, the balancer over them and, where they are installed, HAProxy and nginx
over the same workers. It prints tables and writes benchmarks/results/balancer-DATE.json. `--parts` chooses:

latency  lanes that ask one way at a time, all ways in turn with the order rotated: time to the first byte, each chunk's
         transit from the worker's write, and both compared with those of the same streams asked directly
paced    live streams: share of a core that each way takes while all of them run, and how late their chunks are; direct
         is one tone worker alone, and shows what the load's own two ends can do
held     many streams at once: how they are answered, and the balancer's resident memory
burst    more requests at once than there are places: how each is answered

`--settings NAME=VALUE` gives the balancer BALANCER_NAME, `--tree` runs that of another checkout. `client_cpu` and
`workers_cpu` are what the load itself took, in cores: near 1 for any one process, it is what is measured. `idle_cpu` is
what the machine had left: near 0, all waited for cores.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from bench_fleet import ROOT
from bench_processes import NotStarted, Shares, Way, idle_again
from bench_proxies import REFERENCES, balancer, installed, surroundings, tone_workers
from bench_streams import RAMP_PER_S, added, at_once, begin, first_bytes, in_turn, lateness, milliseconds, outcomes
from tone import Tone

PARTS = ("latency", "paced", "held", "burst")
_SHORT_CHUNK_MS = 40
_LIVE = Tone(chunk_ms=200)
_SETTLE_S = 0.3


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured. `turn` is the streams that each lane hears before the next way has its turn."""

    lanes: int = 20
    rounds: int = 6
    turn: int = 3
    short_s: float = 1.0
    streams: int = 400
    seconds: float = 20.0
    reference_seconds: float = 8.0
    held: int = 1000
    plateau_s: float = 5.0
    burst: int = 500
    work_s: float = 10.0


QUICK = Sizes(
    lanes=4,
    rounds=1,
    turn=1,
    short_s=0.2,
    streams=20,
    seconds=1.0,
    reference_seconds=0.5,
    held=40,
    plateau_s=0.5,
    burst=40,
    work_s=0.5,
)


class Bench:
    """The parts. What they measure is started when it is first needed, and stopped with `stack`."""

    def __init__(self, options: argparse.Namespace, folder: Path, stack: ExitStack) -> None:
        self._options, self._sizes, self._folder, self._stack = options, options.sizes, folder, stack

    @cached_property
    def _tones(self) -> list[Way]:
        return self._stack.enter_context(tone_workers(self._folder, self._options.workers))

    @cached_property
    def _ways(self) -> list[Way]:
        """All that stands in front of the tone workers, the balancer first."""
        others = [REFERENCES[name](self._folder, self._tones) for name in installed()]
        return [self._stack.enter_context(way) for way in (self._balancer("shared", self._tones), *others)]

    def _balancer(self, folder: str, tones: Sequence[Way]) -> AbstractContextManager[Way]:
        return balancer(self._folder / folder, tones, self._options.tree, dict(self._options.settings))

    def latency(self) -> dict[str, Any]:
        sizes = self._sizes
        ports = {"direct": [tone.port for tone in self._tones], **{way.name: [way.port] for way in self._ways}}
        tone = Tone(audio_s=sizes.short_s, chunk_ms=_SHORT_CHUNK_MS)
        heard = uvloop.run(in_turn(ports, tone, lanes=sizes.lanes, rounds=sizes.rounds, turn=sizes.turn))
        return {
            "lanes": sizes.lanes,
            "ways": {
                name: {
                    "outcomes": outcomes(streams),
                    "first_byte_ms": milliseconds(first_bytes(streams)),
                    "transit_ms": milliseconds([each for stream in streams for each in stream.transits]),
                    **(added(heard["direct"], streams) if name != "direct" else {}),
                }
                for name, streams in heard.items()
            },
        }

    def paced(self) -> dict[str, Any]:
        sizes, found = self._sizes, {}
        for way in (*self._ways, replace(self._tones[0], name="direct")):
            seconds = sizes.seconds if way is self._ways[0] else sizes.reference_seconds
            found[way.name] = uvloop.run(live(way, self._tones, sizes.streams, seconds))
        return {"streams": sizes.streams, "chunk_ms": _LIVE.chunk_ms, "ways": found}

    def held(self) -> dict[str, Any]:
        with self._balancer("held", self._tones) as way:
            return uvloop.run(holding(way, self._tones, self._sizes.held, self._sizes.plateau_s))

    def burst(self) -> dict[str, Any]:
        workers, slots, sizes = 4, 4, self._sizes
        service_s = sizes.work_s * workers * slots / sizes.burst
        tone = Tone(audio_s=service_s, chunk_ms=service_s * 1000 / 8, first_byte_ms=service_s * 1000 / 8)
        folder, most = self._folder / "burst", self._options.burst_max_jobs
        with tone_workers(folder, workers, slots=slots, max_jobs=most) as tones, self._balancer("burst", tones) as way:
            streams, seconds = uvloop.run(at_once(way.port, sizes.burst, tone, limit_s=3 * sizes.work_s + 20))
        refused = [heard for heard in streams if heard.status == 429]
        return {
            "requests": sizes.burst,
            "places": workers * slots,
            "service_s": round(service_s, 4),
            "seconds": round(seconds, 3),
            "outcomes": outcomes(streams),
            "refused": len(refused),
            "refused_with_retry_after": sum(heard.retry_after is not None for heard in refused),
            "unanswered": sum(heard.status == 0 for heard in streams),
            "first_byte_ms": milliseconds(first_bytes(streams)),
        }


async def live(way: Way, tones: Sequence[Way], count: int, seconds: float) -> dict[str, Any]:
    """Streams in real time; the shares are of the seconds during which all run."""
    tone = replace(_LIVE, audio_s=count / RAMP_PER_S + seconds + 3 * _SETTLE_S)
    streams, tasks = await begin(way.port, count, tone, limit_s=2 * tone.audio_s + 20)
    await asyncio.sleep(_SETTLE_S)
    shares, before = Shares(way, tones), sum(len(heard.arrivals) for heard in streams)
    await asyncio.sleep(seconds)
    taken, came = shares.now(), sum(len(heard.arrivals) for heard in streams) - before
    await asyncio.gather(*tasks)
    return {
        "seconds": seconds,
        **taken,
        "chunks_per_s": round(came / seconds, 1),
        "cpu_us_per_chunk": round(1e6 * taken["cpu"] * seconds / came, 1) if came else None,
        "outcomes": outcomes(streams),
        "first_byte_ms": milliseconds(first_bytes(streams)),
        **lateness(streams, tone.chunk_ms / 1000),
    }


async def holding(way: Way, tones: Sequence[Way], count: int, plateau_s: float) -> dict[str, Any]:
    """Streams that nobody ends before we do."""
    before = way.rss_mib()
    streams, tasks = await begin(way.port, count, replace(_LIVE, audio_s=600), limit_s=600)
    await asyncio.sleep(plateau_s)
    shares, plateau = Shares(way, tones), [way.rss_mib()]
    await asyncio.sleep(plateau_s)
    plateau.append(way.rss_mib())
    taken, answered = shares.now(), outcomes(streams)
    late = lateness(streams, _LIVE.chunk_ms / 1000)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    idle = await asyncio.to_thread(idle_again, way, 15.0)
    await asyncio.sleep(plateau_s / 2)
    return {
        "streams": count,
        "held": answered.pop("unfinished", 0),
        "others": answered,
        **taken,
        "rss_mib": {"before": before, "plateau": plateau, "after": way.rss_mib()},
        "idle_after_s": idle,
        **late,
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--parts", type=_parts, default=PARTS, metavar="NAME,...", help=",".join(PARTS))
    add("--quick", action="store_true", help="a short run, whose figures say little")
    add("--streams", type=int, metavar="N", help=f"of the part paced; {Sizes().streams}")
    add("--workers", type=int, default=2, metavar="N", help="tone workers, but for the burst's four; %(default)s")
    add("--burst-max-jobs", type=int, default=256, metavar="N", help="that one of those four takes; %(default)s")
    add("--settings", type=_setting, action="append", default=[], metavar="NAME=VALUE", help="of the balancer")
    add("--tree", type=Path, default=ROOT, metavar="DIR", help="checkout whose balancer is run")
    add("--logs", type=Path, metavar="DIR", help="keep what all processes wrote here")
    add("--out", type=Path, metavar="PATH", help="benchmarks/results/balancer-DATE.json")
    options = parser.parse_args()
    options.sizes = QUICK if options.quick else Sizes()
    options.sizes = replace(options.sizes, streams=options.streams or options.sizes.streams)
    return options


def _parts(text: str) -> tuple[str, ...]:
    if not set(text.split(",")) <= set(PARTS):
        raise argparse.ArgumentTypeError(f"some of {','.join(PARTS)}")
    return tuple(text.split(","))


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError("NAME=VALUE")
    return name, value


def environment(options: argparse.Namespace) -> dict[str, Any]:
    """What was measured, when and where; the commit is that of the balancer's checkout."""
    flags = ["--quick"] * options.quick + [f"--settings {name}={value}" for name, value in options.settings]
    sized = f"--streams {options.sizes.streams} --workers {options.workers} --burst-max-jobs {options.burst_max_jobs}"
    command = " ".join(["scripts/bench_balancer.py --parts", ",".join(options.parts), sized, *flags])
    return {"command": command, **surroundings(options.tree)}


def show(part: str, figures: dict[str, Any]) -> None:
    """A column for each way, a row for each figure."""
    ways = figures.get("ways", {"balancer": figures})
    about = ", ".join(f"{name} {value}" for name, value in figures.items() if "ways" in figures and name != "ways")
    table = Table(part, *ways, title=about or None)
    for name in dict.fromkeys(name for way in ways.values() for name in way):
        table.add_row(name, *(_told(way.get(name, "")) for way in ways.values()))
    Console(width=max(120, Console().width)).print(table)


def _told(value: object) -> str:
    return "\n".join(f"{name} {each}" for name, each in value.items()) if isinstance(value, dict) else str(value)


def main() -> None:
    options = parse_arguments()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of what stops the children
    gc.disable()  # a pause of ours would be taken for the balancer's
    result = environment(options)
    with tempfile.TemporaryDirectory() as unkept, ExitStack() as stack:
        bench = Bench(options, options.logs or Path(unkept), stack)
        for part in options.parts:
            try:
                result[part] = getattr(bench, part)()
            except NotStarted as error:
                sys.exit(f"error: {error}")
            show(part, result[part])
            gc.collect()
    target = options.out or ROOT / "benchmarks/results" / f"balancer-{result['date'][:10]}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
