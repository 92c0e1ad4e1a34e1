"""The workers under a benchmark's load: one started for it or those that run, their memory and what they count."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import linear_regression
from typing import Any, Self

import httpx2
from bench_fleet import ROOT
from pydantic import ValidationError

from fleet.contract import FleetStats, WorkerHealth
from fleet.errors import Unreachable, UpstreamFailed
from fleet.server import bind
from fleet.startup_errors import StartupError
from fleet.supervisor import Program, Supervisor

HOST = "127.0.0.1"
START_LIMIT_S, STOP_GRACE_S = 900.0, 15.0
HEALTH_TIMEOUT_S = 10.0


@contextmanager
def running_worker(settings: Mapping[str, object], logs: Path | None) -> Iterator[str]:
    """The address of a worker with these settings, by their names, once it can speak. Raises `StartupError`."""
    with bind(HOST, 0) as free:
        port = free.getsockname()[1]
    named = {"name": "worker-0", "host": HOST, "port": port, **settings}
    environment = {f"CHATTERBOX_{name.upper()}": str(value) for name, value in named.items() if value is not None}
    url = f"http://{HOST}:{port}"
    with tempfile.TemporaryDirectory() as unkept:
        supervisor = Supervisor(logs or Path(unkept))
        try:
            supervisor.start([Program("worker-0", "workers", {**environment, "PYTHONPATH": str(ROOT)}, "worker-0.log")])
            deadline = time.monotonic() + START_LIMIT_S
            while not _is_ready(url):
                supervisor.require_alive()
                if time.monotonic() > deadline:
                    raise StartupError(f"the worker was not ready within {START_LIMIT_S:g} s")
                time.sleep(0.1)
            yield url
        finally:
            supervisor.stop(STOP_GRACE_S)


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/ready", timeout=5, trust_env=False).is_success
    except httpx2.HTTPError:
        return False


class Workers:
    """The worker that answers at the client's address, or those of the balancer there."""

    def __init__(self, client: httpx2.AsyncClient, role: str, urls: Sequence[str]) -> None:
        self.role = role
        self.rss_mib: list[tuple[int, float]] = []
        """What `look` saw: a number, and the resident memory of all workers with their children."""
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
            raise Unreachable(
                f"nothing answers at {url} ({problem}); is the fleet up? --start starts a worker"
            ) from None
        except (ValueError, LookupError, TypeError):
            raise UpstreamFailed(f"{url} answers, but neither as a worker nor as a balancer does") from None
        return cls(client, role, [worker.url for worker in stats.workers])

    async def health(self) -> list[WorkerHealth]:
        """Of those that answer."""
        found = await asyncio.gather(*map(self._one, self._urls))
        return [health for health in found if health is not None]

    async def look(self, ended: int) -> None:
        self.rss_mib.append((ended, round(sum(worker.memory_bytes for worker in await self.health()) / 2**20, 1)))

    async def _one(self, url: str) -> WorkerHealth | None:
        try:
            answer = await self._client.get(f"{url}/health", timeout=HEALTH_TIMEOUT_S)
            return WorkerHealth.model_validate_json(answer.content)
        except (httpx2.HTTPError, ValidationError):
            return None


def flatness(samples: Sequence[tuple[int, float]]) -> dict[str, Any] | None:
    """Resident memory after so many requests, MiB, and its growth by least squares over their second half."""
    in_order = sorted(samples)
    late = [(ended, rss) for ended, rss in in_order if 2 * ended >= in_order[-1][0]]
    if len(late) < 2:
        return None
    slope, _ = linear_regression([ended for ended, _ in late], [rss for _, rss in late])
    return {"rss_mib": in_order, "growth_mib_per_1000": round(1000 * slope, 3)}


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
    held = [size / 2**20 for size in (old.device_bytes, new.device_bytes) if size is not None]
    return {
        "steps_per_s": round(counts["steps"] / seconds, 3),
        "newest_steps_per_s": new.steps_per_s,
        "rows_per_step": round(rows / counts["steps"], 3) if counts["steps"] else None,
        "rows_per_euler_step": round(euler_rows / counts["euler_steps"], 3) if counts["euler_steps"] else None,
        **counts,
        **({"device_mib": [round(mib, 1) for mib in held]} if held else {}),
    }
