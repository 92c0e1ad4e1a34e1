#!/usr/bin/env python3
"""Compare the balancer's policies in simulated time: waiting, slowdown, warm voices. Nothing is started or slept for.

`scripts/simulate_policies.py` sends the same Poisson arrivals through each policy of `balancer.policy`, and through one
central queue for reference, prints tables and writes policies-DATE.json into `--output`.

Load is the share of what all workers together can decode with every place taken. Waiting is from arrival until the
request has a place, in service times: the mean time of a request alone at a worker. Slowdown is a request's time from
arrival to end over its time alone. `busiest` is the load of the worker that was given most: above 1, its queue grows as
long as the load lasts, and the figures beside it only tell how long that was. `warm` is the share of requests whose
voice was among the last 20 of their worker; there are 200, the k-th asked for in proportion to 1/k. The first tenth of
the requests is not counted.

A request waits at the worker that was chosen for it, unless a table says that the balancer waits for a free place, as
the real one's admission does: serial workers are then one queue, whatever the policy.

Policies see what the balancer shows them. Occupancy is the requests at a worker, this one included, over its places; a
serial worker has one place, so that without admission it is the length of its queue plus one. Backlog is the characters
of those requests over the places. Least outstanding and p2c compare occupancy, then backlog; affinity compares the
occupancy of the voice's two workers; `by_characters` compares backlog alone, and is there for what decided against it.

Where only queue lengths are known, backlog is 0 and the table is that of the design notes, in which round-robin waits
3.35 on average (as E4/M/1 3.30), p2c 1.78, least outstanding 1.38 and the central queue 1.21 (as M/M/4 1.15);
`by_characters` is round-robin there.

Lengths are exponential in the serial tables, as theory wants them; elsewhere they are lognormal with the same variance,
so that the slowdown has a mean. Both have a mean of 100 characters, about 7 s of speech; where they are mixed, one text
in ten is 20 times as long.

Times are those of T3 alone. A batched step takes 0.24 ms + 0.057 ms * rows * context / 1000, through the floors of one
H200: 0.30 ms for one row and 3.9 ms for 64 of context 1000, 1.34 ms for 64 of context 300. A serial worker makes 120
tokens a second.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from simulated_workers import (
    TOKENS_PER_CHAR,
    VOICES_WARM,
    Balancer,
    Balancers,
    CentralQueue,
    Kind,
    Request,
    Worker,
    arrivals,
    run,
)

from balancer.policy import POLICIES, Ask, Policy, PowerOfTwo, RoundRobin, W

ROOT = Path(__file__).resolve().parent.parent
LOADS = (0.5, 0.85, 0.95)
MEAN_CHARS = 100.0
LONG_SHARE, LONG_TIMES = 0.1, 20.0
VOICES = 200
SERIAL = Kind(slots=1, base_s=1 / 120, row_s=0.0)


class ByCharacters:
    """Least outstanding by characters alone, for reference: what it makes of batched workers is why the balancer's
    policies compare requests first.
    """

    name = "by_characters"

    def __init__(self) -> None:
        self._ties = RoundRobin()

    def choose(self, candidates: Sequence[W], everyone: Sequence[W], ask: Ask) -> W:
        least = min(worker.backlog for worker in candidates)
        return self._ties.choose([worker for worker in candidates if worker.backlog <= least], everyone, ask)


CENTRAL_QUEUE = "central_queue"
CHOOSERS = (*POLICIES, ByCharacters.name, CENTRAL_QUEUE)


def batched(slots: int, context: int) -> Kind:
    """One H200 in bf16; the weights' share of a step is fixed, the cache's grows with rows and their context."""
    return Kind(slots=slots, base_s=0.24e-3, row_s=57e-9 * context)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`lengths` is exponential, lognormal or mixed; `half` slows the last worker to half its speed. Where there are
    several balancers, each hears of the others' requests every `told_every_s` seconds, or never. A balancer that
    `admits` lets requests wait until a worker has a place; else they wait at the worker that was chosen. One that does
    not count characters knows queue lengths alone.
    """

    group: str
    kind: Kind
    load: float
    lengths: str = "lognormal"
    workers: int = 4
    half: bool = False
    balancers: int = 1
    told_every_s: float | None = None
    admits: bool = False
    counts_chars: bool = True

    @property
    def kinds(self) -> list[Kind]:
        kinds = [self.kind] * self.workers
        return [*kinds[:-1], replace(self.kind, speed=self.kind.speed / 2)] if self.half else kinds

    @property
    def mean_chars(self) -> float:
        return MEAN_CHARS * (1 + LONG_SHARE * (LONG_TIMES - 1)) if self.lengths == "mixed" else MEAN_CHARS

    @property
    def service_s(self) -> float:
        """The mean time of a request alone at a worker of full speed."""
        return self.mean_chars * TOKENS_PER_CHAR * self.kind.step_s(1)


def scenarios(context: int) -> Iterator[Scenario]:
    kinds = (SERIAL, batched(16, context), batched(64, context))
    yield from (Scenario("serial, exponential lengths", SERIAL, load, "exponential") for load in LOADS)
    yield Scenario(
        "serial, exponential lengths, only queue lengths known", SERIAL, 0.85, "exponential", counts_chars=False
    )
    yield from (Scenario("batched", kind, load) for kind in kinds[1:] for load in LOADS)
    yield from (Scenario("one text in ten is 20 times as long", kind, 0.85, "mixed") for kind in kinds)
    mixed = "one text in ten is 20 times as long, the balancer waits for a free place"
    yield from (Scenario(mixed, kind, 0.85, "mixed", admits=True) for kind in kinds[1:])
    yield from (Scenario("the balancer waits for a free place", kind, 0.95, admits=True) for kind in kinds[1:])
    yield from (Scenario("one of four at half speed", kind, load, half=True) for kind in kinds for load in LOADS[:2])
    yield from (Scenario("two balancers, each knows its own", kind, 0.85, balancers=2) for kind in kinds)
    told = "two balancers, told of each other every second"
    yield from (Scenario(told, kind, 0.85, balancers=2, told_every_s=1.0) for kind in kinds)


def drawn(scenario: Scenario, requests: int, seed: int) -> list[Request]:
    """The same for every policy."""
    lots = np.random.default_rng(seed)
    if scenario.lengths == "exponential":
        chars = lots.exponential(MEAN_CHARS, requests)
    else:
        sigma = math.sqrt(math.log(2))  # the variance is the mean squared, as of the exponential
        chars = lots.lognormal(math.log(MEAN_CHARS) - sigma**2 / 2, sigma, requests)
        if scenario.lengths == "mixed":
            chars *= np.where(lots.random(requests) < LONG_SHARE, LONG_TIMES, 1.0)
    popularity = 1 / np.arange(1, VOICES + 1)
    voices = lots.choice(VOICES, requests, p=popularity / popularity.sum())
    tokens_per_s = scenario.load * sum(kind.tokens_per_s for kind in scenario.kinds)
    per_s = tokens_per_s / (scenario.mean_chars * TOKENS_PER_CHAR)
    return arrivals(per_s, chars.tolist(), voices.tolist(), lots)


def new_policy(name: str, seed: int) -> Policy:
    if name == PowerOfTwo.name:
        return PowerOfTwo(random.Random(seed))  # noqa: S311 - no secret
    return ByCharacters() if name == ByCharacters.name else POLICIES[name]()


def simulate(scenario: Scenario, chooser: str, requests: int, seed: int) -> dict[str, Any]:
    """What `chooser`, one of `CHOOSERS`, makes of a scenario."""
    sent = drawn(scenario, requests, seed)
    workers = [Worker(f"http://127.0.0.1:{9001 + number}", kind) for number, kind in enumerate(scenario.kinds)]
    if chooser == CENTRAL_QUEUE:
        run(sent, CentralQueue(workers))
    else:
        balancers = [
            Balancer(
                new_policy(chooser, seed + number),
                workers,
                admits=scenario.admits,
                counts_chars=scenario.counts_chars,
            )
            for number in range(scenario.balancers)
        ]
        lots = random.Random(seed)  # noqa: S311 - no secret
        run(sent, Balancers(balancers, lots), refresh_s=scenario.told_every_s or math.inf)
    return measured(scenario, sent, workers)


def measured(scenario: Scenario, sent: list[Request], workers: list[Worker]) -> dict[str, Any]:
    counted = sent[len(sent) // 10 :]
    wait = np.array([each.starts_at - each.arrives_at for each in counted]) / scenario.service_s
    slowdown = np.array(
        [(each.ends_at - each.arrives_at) / (each.tokens * scenario.kind.step_s(1)) for each in counted]
    )
    loads = [worker.given_tokens / worker.kind.tokens_per_s / sent[-1].arrives_at for worker in workers]
    return {
        "wait": spread(wait),
        "slowdown": spread(slowdown) if scenario.lengths != "exponential" else None,  # its mean does not exist
        "busiest": round(max(loads), 3),
        "warm": round(sum(each.warm for each in counted) / len(counted), 3),
    }


def spread(values: np.ndarray) -> dict[str, float]:
    return {"mean": round(float(values.mean()), 3), "p99": round(float(np.percentile(values, 99)), 2)}


def show(rows: list[dict[str, Any]]) -> None:
    """A table for each group of scenarios."""
    console = Console()
    for group in dict.fromkeys(row["scenario"]["group"] for row in rows):
        table = Table(
            "places", "load", "policy", "wait: mean / p99", "slowdown: mean / p99", "busiest", "warm", title=group
        )
        for row in (row for row in rows if row["scenario"]["group"] == group):
            scenario = row["scenario"]
            slowdown = row["slowdown"] and f"{row['slowdown']['mean']:.2f} / {row['slowdown']['p99']:.1f}"
            table.add_row(
                str(scenario["kind"]["slots"]),
                f"{scenario['load']:g}",
                row["policy"],
                f"{row['wait']['mean']:.2f} / {row['wait']['p99']:.1f}",
                slowdown or "",
                f"{row['busiest']:.2f}",
                f"{row['warm']:.0%}",
                end_section=row["policy"] == CHOOSERS[-1],
            )
        console.print(table)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6_000, help="for each policy in each scenario")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--context", type=int, default=300, help="tokens a live row has behind it, on average")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results", metavar="DIR")
    options = parser.parse_args()
    if options.requests < 10:
        parser.error("--requests must be at least 10")
    return options


def described(options: argparse.Namespace) -> dict[str, Any]:
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["scripts/simulate_policies.py", *sys.argv[1:]]),
        "commit": subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip() or None,
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
        "settings": {"requests": options.requests, "seed": options.seed, "context": options.context},
        "units": {"wait": "mean times of a request alone", "slowdown": "its time from arrival to end over that alone"},
        "voices": {"known": VOICES, "warm_per_worker": VOICES_WARM},
    }


def main() -> None:
    options = parse_arguments()
    began_at = time.perf_counter()
    cases = [(scenario, chooser) for scenario in scenarios(options.context) for chooser in CHOOSERS]
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as processes:
        found = [processes.submit(simulate, *case, options.requests, options.seed) for case in cases]
        rows = [
            {
                "scenario": asdict(scenario),
                "service_s": round(scenario.service_s, 4),
                "policy": chooser,
                **each.result(),
            }
            for (scenario, chooser), each in zip(cases, found, strict=True)
        ]
    result = described(options) | {"rows": rows}
    options.output.mkdir(parents=True, exist_ok=True)
    target = options.output / f"policies-{result['date'][:10]}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    show(rows)
    print(f"{time.perf_counter() - began_at:.0f} s; wrote {target}")


if __name__ == "__main__":
    main()
