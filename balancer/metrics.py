"""What the balancer measures, for Prometheus and for `/stats`."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from balancer.pool import State, WorkerPool

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class BalancerMetrics:
    """Counters of one balancer; labels are worker names and a fixed set of outcomes."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self.started_at = time.time()
        self.requests_total = self.failures_total = self.retries_total = self.bytes_total = 0
        self._registry: CollectorRegistry = CollectorRegistry()
        self._requests = Counter(
            "balancer_requests",
            "Requests ended, by worker and outcome.",
            ["worker", "outcome"],
            registry=self._registry,
        )
        self._retries = Counter("balancer_retries", "Requests tried again on another worker.", registry=self._registry)
        self._bytes = Counter("balancer_sent_bytes", "Body bytes passed on to callers.", registry=self._registry)
        self._first_byte = Histogram(
            "balancer_first_byte_seconds",
            "From a request's acceptance to its first body byte.",
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._duration = Histogram(
            "balancer_request_seconds",
            "From a request's acceptance to its end.",
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._in_flight = Gauge(
            "balancer_in_flight", "Requests being served, by worker.", ["worker"], registry=self._registry
        )
        self._ready = Gauge(
            "balancer_worker_ready", "1 while the worker is ready.", ["worker"], registry=self._registry
        )

    def retried(self) -> None:
        self.retries_total += 1
        self._retries.inc()

    def first_byte(self, seconds: float) -> None:
        self._first_byte.observe(seconds)

    def sent(self, count: int) -> None:
        self.bytes_total += count
        self._bytes.inc(count)

    def ended(self, worker: str, outcome: str, seconds: float) -> None:
        """Outcomes: `ok`, `refused` (4xx), `failed` (5xx), `cut_short`, `client_gone`, `unserved` (no worker)."""
        self.requests_total += 1
        if outcome in ("failed", "cut_short", "unserved"):
            self.failures_total += 1
        self._requests.labels(worker, outcome).inc()
        self._duration.observe(seconds)

    def exposition(self) -> bytes:
        for worker in self._pool.workers:
            self._in_flight.labels(worker.name).set(worker.in_flight)
            self._ready.labels(worker.name).set(worker.state is State.ready)
        return generate_latest(self._registry)
