"""The fleet's figures as one answer."""

from __future__ import annotations

import time

import fleet
from balancer.admission import Admission
from balancer.members import Members
from balancer.metrics import BalancerMetrics
from balancer.pool import WorkerPool
from balancer.worker import Worker
from fleet.contract import FleetStats, FleetTotals, MissingFigures, WorkerHealth, WorkerStats

_OLDEST_S = 15.0
"""Figures of a worker that are older are not added to the totals."""


def fleet_stats(pool: WorkerPool, admission: Admission, members: Members, metrics: BalancerMetrics) -> FleetStats:
    """Totals, and each worker with the age of what is known of it; whose figures the totals lack is said."""
    now = time.monotonic()
    everyone = [*pool.workers, *pool.leaving]
    missing = [MissingFigures(worker=worker.name, reason=why) for worker in everyone if (why := _missing(worker, now))]
    known: list[WorkerHealth] = [
        worker.health for worker in everyone if worker.health is not None and _missing(worker, now) is None
    ]
    return FleetStats(
        version=fleet.__version__,
        policy=pool.policy.name,
        uptime_s=time.time() - metrics.started_at,
        totals=FleetTotals(
            workers=len(pool.workers),
            ready=len(pool.serving()),
            in_flight=sum(worker.in_flight for worker in everyone),
            waiting=admission.waiting,
            requests=metrics.requests_total,
            failures=metrics.failures_total,
            retries=metrics.retries_total,
            ejections=sum(worker.ejections for worker in everyone),
            bytes_sent=metrics.bytes_total,
            running_jobs=sum(health.running_jobs for health in known),
            queued_jobs=sum(health.queued_jobs for health in known),
            memory_bytes=sum(health.memory_bytes for health in known),
        ),
        missing=missing,
        workers=[_worker_stats(worker, members.source_of(worker), now) for worker in everyone],
    )


def in_words(pool: WorkerPool, admission: Admission) -> str:
    """What there is to see at a glance."""
    in_flight = sum(worker.in_flight for worker in (*pool.workers, *pool.leaving))
    waiting = sum(admission.waiting.values())
    ready = f"{len(pool.serving())} of {len(pool.workers)} workers ready"
    return f"{ready}, {in_flight} in flight, {waiting} waiting"


def _missing(worker: Worker, now: float) -> str | None:
    if worker.health_at is None:
        return worker.reason or "it has not answered yet"
    age_s = now - worker.health_at
    if age_s <= _OLDEST_S:
        return None
    return f"its figures are {age_s:.0f} s old" + (f": {worker.reason}" if worker.reason else "")


def _worker_stats(worker: Worker, source: str, now: float) -> WorkerStats:
    return WorkerStats(
        name=worker.name,
        url=worker.url,
        source=source,
        state=worker.state.value,
        reason=worker.reason,
        since_s=now - worker.since,
        in_flight=worker.in_flight,
        jobs=worker.jobs,
        foreign_jobs=worker.foreign_jobs,
        limit=worker.limit,
        pending_chars=worker.pending_chars,
        weight=round(worker.weight, 2),
        requests=worker.requests,
        failures=worker.failures,
        ejections=worker.ejections,
        age_s=None if worker.health_at is None else now - worker.health_at,
        health=worker.health,
    )
