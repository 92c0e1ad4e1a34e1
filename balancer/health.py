"""Active probes: each worker is asked, again and again, whether a synthesis would succeed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import structlog
from pydantic import ValidationError

from balancer.pool import State, Worker, WorkerPool
from fleet.contract import WorkerHealth

log = structlog.get_logger()

_JITTER = 0.2
"""Share of the interval by which probes differ, so that many balancers do not ask all at once."""

_STARTING_PAUSE_S = 0.2
"""A worker that has never been ready is asked more often, so that a fleet starts without waiting."""


class HealthMonitor:
    """Probes every worker of a pool while its context is entered."""

    def __init__(self, pool: WorkerPool, *, interval_s: float, timeout_s: float) -> None:
        self._pool = pool
        self._interval_s = interval_s
        self._client = httpx2.AsyncClient(timeout=timeout_s, trust_env=False)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._client:
            tasks = [asyncio.create_task(self._watch(worker)) for worker in self._pool.workers]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, worker: Worker) -> None:
        while True:
            try:
                await self.probe(worker)
            except Exception:  # Whatever it is, the worker must not stay as it was last seen.
                log.exception("probe_crashed", worker=worker.name)
                worker.probe_failed("the balancer could not probe it; its log says more")
            longest_s = _STARTING_PAUSE_S if worker.state is State.starting else self._interval_s
            await asyncio.sleep(min(self._interval_s, longest_s) * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret

    async def probe(self, worker: Worker) -> None:
        """Ask once and tell the worker's record what came of it."""
        try:
            answer = await self._client.get(f"{worker.url}/ready")
            if answer.status_code == 200:
                told = await self._client.get(f"{worker.url}/health")
                health = WorkerHealth.model_validate_json(told.content)
                worker.learned(health)
                if (conflict := self._pool.conflict(worker, health)) is not None:
                    worker.probe_failed(conflict)
                else:
                    worker.probe_succeeded()
            else:
                worker.probe_failed(f"its probe was answered {answer.status_code}")
        except httpx2.TimeoutException:
            worker.probe_failed("its probe timed out")
        except httpx2.HTTPError as error:
            worker.probe_failed(f"its probe failed: {error}")
        except ValidationError:
            worker.probe_failed("its health answer is not a worker's")
