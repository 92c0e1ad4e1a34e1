"""The fleet's figures as one answer."""

from __future__ import annotations

import time

import fleet
from balancer.metrics import BalancerMetrics
from balancer.pool import Worker, WorkerPool
from fleet.contract import FleetStats, FleetTotals, WorkerStats


def fleet_stats(pool: WorkerPool, metrics: BalancerMetrics) -> FleetStats:
    """Totals, and each worker with the age of what is known of it."""
    return FleetStats(
        version=fleet.__version__,
        policy=pool.policy.name,
        uptime_s=time.time() - metrics.started_at,
        totals=FleetTotals(
            workers=len(pool.workers),
            ready=len(pool.ready()),
            in_flight=sum(worker.in_flight for worker in pool.workers),
            requests=metrics.requests_total,
            failures=metrics.failures_total,
            retries=metrics.retries_total,
            bytes_sent=metrics.bytes_total,
        ),
        workers=[_worker_stats(worker, time.monotonic()) for worker in pool.workers],
    )


def _worker_stats(worker: Worker, now: float) -> WorkerStats:
    return WorkerStats(
        name=worker.name,
        url=worker.url,
        state=worker.state.value,
        reason=worker.reason,
        since_s=now - worker.since,
        in_flight=worker.in_flight,
        requests=worker.requests,
        failures=worker.failures,
        age_s=None if worker.health_at is None else now - worker.health_at,
        health=worker.health,
    )
