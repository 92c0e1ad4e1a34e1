"""Speech requests over HTTP at a given load: what a listener of each would have heard, and what the workers counted."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self

import httpx2
import numpy as np
from pydantic import ValidationError

from fleet.contract import SAMPLE_RATE, FleetStats, WorkerHealth
from fleet.errors import Unreachable, UpstreamFailed, from_response

BYTES_PER_S = 2 * SAMPLE_RATE
HEALTH_TIMEOUT_S = 10.0
OK = "ok"

Body = dict[str, Any]
"""A speech request."""


class Player:
    """Plays a stream in real time from its first piece on. Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.played_s = 0.0
        self.gaps_s: list[float] = []
        """How long the player was silent each time that all sound so far had been played before more came."""
        self._dry_at = 0.0

    def hear(self, size: int, at: float) -> None:
        """So many bytes of PCM have come."""
        if not size:
            return
        if self.first_at is None:
            self.first_at = self._dry_at = at
        elif at > self._dry_at:
            self.gaps_s.append(at - self._dry_at)
            self._dry_at = at
        self._dry_at += size / BYTES_PER_S
        self.played_s += size / BYTES_PER_S


@dataclass(frozen=True, slots=True)
class Heard:
    """One request. `outcome` is `ok`, the status and code of an error answer, or the name of the connection's error.

    `ttfa_s` and `total_s` run until the first and the last byte of sound, from when the request was sent, or in an open
    loop from when it was due.
    """

    seed: int
    outcome: str
    message: str
    ttfa_s: float | None
    total_s: float
    audio_s: float
    gaps_s: tuple[float, ...]


async def listen(client: httpx2.AsyncClient, body: Body, began: float) -> Heard:
    player, outcome, message = Player(), OK, ""
    try:
        async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
            if answer.is_success:
                async for piece in answer.aiter_raw():
                    player.hear(len(piece), time.perf_counter())
                if player.first_at is None:
                    outcome = message = f"{answer.status_code} without sound"
            else:
                error = from_response(answer.status_code, _json(await answer.aread()))
                outcome, message = f"{answer.status_code} {error.code}", error.message
    except httpx2.HTTPError as problem:
        outcome, message = type(problem).__name__, str(problem)
    return Heard(
        seed=body["seed"],
        outcome=outcome,
        message=message,
        ttfa_s=None if player.first_at is None else player.first_at - began,
        total_s=time.perf_counter() - began,
        audio_s=player.played_s,
        gaps_s=tuple(player.gaps_s),
    )


def _json(content: bytes) -> object:
    try:
        found: object = json.loads(content)
    except ValueError:
        return None
    return found


class Workers:
    """The worker that answers at the client's address, or those of the balancer there."""

    def __init__(self, client: httpx2.AsyncClient, role: str, urls: Sequence[str]) -> None:
        self.role = role
        self._client = client
        self._urls = urls

    @classmethod
    async def find(cls, client: httpx2.AsyncClient) -> Self:
        """Raises `Unreachable`, or `UpstreamFailed` when something else answers."""
        url = str(client.base_url).rstrip("/")
        try:
            role = (await client.get("/health", timeout=HEALTH_TIMEOUT_S)).json()["role"]
            if role == "worker":
                return cls(client, role, [url])
            stats = FleetStats.model_validate_json((await client.get("/stats")).content)
        except httpx2.HTTPError as problem:
            raise Unreachable(f"nothing answers at {url} ({problem}); is the fleet up? --start starts a worker") from None
        except (ValueError, LookupError, TypeError):
            raise UpstreamFailed(f"{url} answers, but neither as a worker nor as a balancer does") from None
        return cls(client, role, [worker.url for worker in stats.workers])

    async def health(self) -> list[WorkerHealth]:
        """Of those that answer."""
        found = await asyncio.gather(*map(self._one, self._urls))
        return [health for health in found if health is not None]

    async def rss_mib(self) -> float:
        """All workers with their children."""
        return round(sum(worker.memory_bytes for worker in await self.health()) / 2**20, 1)

    async def _one(self, url: str) -> WorkerHealth | None:
        try:
            answer = await self._client.get(f"{url}/health", timeout=HEALTH_TIMEOUT_S)
            return WorkerHealth.model_validate_json(answer.content)
        except (httpx2.HTTPError, ValidationError):
            return None


class Load:
    """What was asked at one load, once. `rss` holds what `Workers.rss_mib` was after so many requests had ended."""

    def __init__(
        self, client: httpx2.AsyncClient, bodies: Iterator[Body], workers: Workers, *, sample_every: int
    ) -> None:
        self.heard: list[Heard] = []
        self.not_sent = 0
        self.rss: list[tuple[int, float]] = []
        self._client = client
        self._bodies = bodies
        self._workers = workers
        self._sample_every = sample_every
        self._tasks = asyncio.TaskGroup()
        self._began = self._ended = 0.0

    @property
    def seconds(self) -> float:
        """From the start to the end of the last request."""
        return self._ended - self._began

    async def closed(self, concurrency: int, requests: int) -> None:
        """So many requests, `concurrency` in flight until the last has been sent."""
        todo = islice(self._bodies, requests)

        async def lane() -> None:
            for body in todo:
                await self._ask(body, time.perf_counter())

        self._began = self._ended = time.perf_counter()
        async with self._tasks as tasks:
            for _ in range(min(concurrency, requests)):
                tasks.create_task(lane())

    async def open(self, rate: float, seconds: float, *, most_in_flight: int, seed: int) -> None:
        """Requests are sent when they are due, whatever became of those before; one too many is not sent."""
        sent = 0
        self._began = self._ended = began = time.perf_counter()
        async with self._tasks as tasks:
            for arrival in arrivals(rate, seconds, seed):
                await asyncio.sleep(max(0.0, began + arrival - time.perf_counter()))
                if sent - len(self.heard) >= most_in_flight:
                    self.not_sent += 1
                else:
                    sent += 1
                    tasks.create_task(self._ask(next(self._bodies), began + arrival))

    async def _ask(self, body: Body, began: float) -> None:
        self.heard.append(await listen(self._client, body, began))
        self._ended = time.perf_counter()
        if (ended := len(self.heard)) % self._sample_every == 0:
            self._tasks.create_task(self._sample(ended))

    async def _sample(self, ended: int) -> None:
        self.rss.append((ended, await self._workers.rss_mib()))


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Seconds until each arrival of a Poisson process of so many a second."""
    numbers = np.random.default_rng(seed)
    due = numbers.exponential(1 / rate)
    while due < seconds:
        yield due
        due += numbers.exponential(1 / rate)


def percentiles(values: Sequence[float], *which: int) -> dict[str, float] | None:
    """Between the two nearest values, so never beyond the largest; None of no values."""
    if not values:
        return None
    found = np.percentile(values, which)
    return {f"p{each}": round(float(value), 3) for each, value in zip(which, found, strict=True)}


def aggregate(load: Load) -> dict[str, Any]:
    """The figures of one load; of requests that failed only their number counts."""
    ok = [heard for heard in load.heard if heard.outcome == OK]
    audio_s = sum(heard.audio_s for heard in ok)
    gaps = [gap for heard in ok for gap in heard.gaps_s]
    return {
        "seconds": round(load.seconds, 3),
        "ok": len(ok),
        "failed": dict(Counter(heard.outcome for heard in load.heard if heard.outcome != OK)),
        "not_sent": load.not_sent,
        "ttfa_ms": percentiles([1000 * heard.ttfa_s for heard in ok if heard.ttfa_s is not None], 50, 90, 99),
        "rtf": percentiles([heard.total_s / heard.audio_s for heard in ok], 50, 90),
        "audio_s": round(audio_s, 3),
        "throughput": round(audio_s / load.seconds, 3) if load.heard else 0.0,
        "dry": {
            "streams": sum(bool(heard.gaps_s) for heard in ok),
            "gaps": len(gaps),
            "seconds": round(sum(gaps), 3),
            "longest_s": round(max(gaps, default=0.0), 3),
        },
    }


def flatness(samples: Sequence[tuple[int, float]]) -> dict[str, Any] | None:
    """Resident memory after so many requests, MiB, and how much of its growth came in the second half of them."""
    if len(samples) < 2:
        return None
    in_order = sorted(samples)
    half = next(rss for ended, rss in in_order if 2 * ended >= in_order[-1][0])
    return {"samples": in_order, "growth_second_half": round(in_order[-1][1] - half, 1)}


def counted(before: Sequence[WorkerHealth], after: Sequence[WorkerHealth], seconds: float) -> list[dict[str, Any]]:
    """What each worker has counted in between, and its memory. One that was started anew has only the latter."""
    earlier = {worker.pid: worker for worker in before}
    rows = []
    for worker in after:
        row: dict[str, Any] = {"name": worker.name, "rss_mib": [None, worker.memory_bytes / 2**20]}
        if (then := earlier.get(worker.pid)) is not None:
            row["rss_mib"][0] = then.memory_bytes / 2**20
            row |= _decoded(then, worker, seconds)
        row["rss_mib"] = [mib if mib is None else round(mib, 1) for mib in row["rss_mib"]]
        rows.append(row)
    return rows


def _decoded(before: WorkerHealth, after: WorkerHealth, seconds: float) -> dict[str, Any]:
    """Of an engine that decodes tokens; `newest_steps_per_s` is what it measured itself over its newest steps."""
    if before.figures is None or after.figures is None:
        return {}
    old, new = before.figures, after.figures
    names = ("steps", "tokens", "graph_replays", "eager_steps", "euler_steps", "hops", "hops_late")
    counts = {name: getattr(new, name) - getattr(old, name) for name in names}
    rows, euler_rows = new.step_rows - old.step_rows, new.euler_rows - old.euler_rows
    mib = [None if held is None else round(held / 2**20, 1) for held in (old.device_bytes, new.device_bytes)]
    return {
        "steps_per_s": round(counts["steps"] / seconds, 3),
        "newest_steps_per_s": new.steps_per_s,
        "rows_per_step": round(rows / counts["steps"], 3) if counts["steps"] else None,
        "rows_per_euler_step": round(euler_rows / counts["euler_steps"], 3) if counts["euler_steps"] else None,
        **counts,
        "device_mib": mib,
    }
