"""Active probes: each worker is asked, again and again, whether a synthesis would succeed."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakSet

import aiohttp
import structlog
from pydantic import ValidationError

from balancer.lag import LoopLag
from balancer.pool import WorkerPool
from balancer.worker import Clock, State, Worker
from fleet.contract import ErrorBody, WorkerHealth
from fleet.errors import Draining

log = structlog.get_logger()

_JITTER = 0.2
"""Share of the interval by which probes differ, so that many balancers do not ask all at once."""

_OUR_SHARE = 0.25
"""Share of a probe's time that the balancer itself may have lost without the probe losing its meaning."""

_STARTING_PAUSE_S = 0.2
"""A worker that has never been ready, or is gone, is asked more often, so that a fleet starts without waiting."""

_FIRST_ROUND_S, _FIRST_LOOK_S = 1.0, 0.01


class HealthMonitor:
    """Probes every worker of a pool, whoever comes and goes, while its context is entered."""

    def __init__(
        self, pool: WorkerPool, lag: LoopLag, *, interval_s: float, timeout_s: float, clock: Clock = time.monotonic
    ) -> None:
        self._pool, self._lag, self._clock = pool, lag, clock
        self._interval_s, self._timeout_s = interval_s, timeout_s
        self._watches: dict[Worker, asyncio.Task[None]] = {}
        self._asked: WeakSet[Worker] = WeakSet()
        self._client: aiohttp.ClientSession

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        # A connection of its own for each probe: that one can be made is part of what is asked.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as self._client:
            self._pool.listeners.append(self._follow)
            self._follow()
            try:
                yield
            finally:
                self._pool.listeners.remove(self._follow)
                for task in self._watches.values():
                    task.cancel()
                await asyncio.gather(*self._watches.values(), return_exceptions=True)

    async def first_round(self) -> None:
        """Until a worker serves or all have been asked, and no longer than `_FIRST_ROUND_S`.

        Callers that came while no balancer ran wait in the socket meanwhile, instead of hearing that nobody is ready.
        """
        deadline = self._clock() + _FIRST_ROUND_S
        while self._clock() < deadline and not self._pool.serving():
            if all(worker in self._asked for worker in self._pool.workers):
                return
            await asyncio.sleep(_FIRST_LOOK_S)

    def _follow(self) -> None:
        """A watch for each worker there is."""
        if self._watches.keys() == set(self._pool.workers):
            return
        for gone in self._watches.keys() - set(self._pool.workers):
            self._watches.pop(gone).cancel()
        for worker in self._pool.workers:
            if worker not in self._watches:
                self._watches[worker] = asyncio.create_task(self._watch(worker))

    async def _watch(self, worker: Worker) -> None:
        while True:
            try:
                await self.probe(worker)
            except Exception:  # Whatever it is, the worker must not stay as it was last seen.
                log.exception("probe_crashed", worker=worker.name)
                worker.probe_failed("the balancer could not probe it; its log says more")
            self._asked.add(worker)
            eager = worker.state in (State.starting, State.dead)
            pause_s = min(self._interval_s, _STARTING_PAUSE_S) if eager else self._interval_s
            await asyncio.sleep(pause_s * random.uniform(1 - _JITTER, 1 + _JITTER))  # noqa: S311 - no secret

    async def probe(self, worker: Worker) -> None:
        """Ask once and tell the worker's record what came of it."""
        began_at = self._clock()
        try:
            status, body = await self._get(f"{worker.url}/ready")
            if status == 200:
                _, told = await self._get(f"{worker.url}/health")
                self._judge(worker, WorkerHealth.model_validate_json(told), began_at)
            elif _is_draining(status, body):
                worker.drain("the worker says that it drains")
            else:
                worker.probe_failed(f"its probe was answered {status}")
        except aiohttp.ClientConnectorError as error:
            worker.refused(f"its probe failed: {error}")
        except TimeoutError:
            if (late_s := self._lag.worst_s(began_at)) > _OUR_SHARE * self._timeout_s:
                log.warning("probe_late", worker=worker.name, late_s=round(late_s, 2))  # by ourselves: it says nothing
            else:
                worker.probe_timed_out(began_at)
        except (aiohttp.ClientError, ConnectionError) as error:
            worker.probe_failed(f"its probe failed: {error}")
        except ValidationError:
            worker.probe_failed("its health answer is not a worker's")

    def _judge(self, worker: Worker, health: WorkerHealth, began_at: float) -> None:
        worker.learned(health)
        if (conflict := self._pool.conflict(worker, health)) is not None:
            worker.probe_failed(conflict)
            return
        worker.resume(began_at)
        worker.probe_succeeded()

    async def _get(self, url: str) -> tuple[int, bytes]:
        async with self._client.get(url, allow_redirects=False) as answer:
            return answer.status, await answer.read()


def _is_draining(status: int, body: bytes) -> bool:
    if status != Draining.status:
        return False
    try:
        return ErrorBody.model_validate_json(body).error.code == Draining.code
    except ValidationError:
        return False
