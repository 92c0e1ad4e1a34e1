"""What the balancer measures, for Prometheus and for `/stats`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import ClassVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from balancer.admission import Admission
from balancer.lag import LoopLag
from balancer.passage import Passage
from balancer.pool import WorkerPool
from balancer.worker import SERVING, State
from fleet.errors import FleetError

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BUCKETS_BYTES = (1e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7)


class BalancerMetrics:
    """Counters of one balancer; labels are workers' names, error codes and a fixed set of outcomes."""

    def __init__(self, pool: WorkerPool, admission: Admission, lag: LoopLag) -> None:
        self.started_at = time.time()
        self.requests_total = self.failures_total = self.retries_total = self.bytes_total = 0
        registry = self._registry = CollectorRegistry()
        registry.register(_State(pool, admission, lag))
        self._requests = Counter(
            "balancer_requests", "Requests ended, by worker and outcome.", ["worker", "outcome"], registry=registry
        )
        self._retries = Counter(
            "balancer_retries", "Requests tried again on another worker, by error code.", ["code"], registry=registry
        )
        self._bytes = Counter("balancer_sent_bytes", "Body bytes passed on to callers.", registry=registry)
        self._queue_wait = Histogram(
            "balancer_queue_seconds",
            "From a request's acceptance to its place at a worker.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._first_byte = Histogram(
            "balancer_first_byte_seconds",
            "From a request's acceptance to its first body byte: of speech, the time to first audio.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._duration = Histogram(
            "balancer_request_seconds",
            "From a request's acceptance to its end.",
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._size = Histogram(
            "balancer_answer_bytes", "Body bytes of an answer.", buckets=_BUCKETS_BYTES, registry=registry
        )

    def retried(self, failure: FleetError) -> None:
        self.retries_total += 1
        self._retries.labels(failure.code).inc()

    def ended(self, passage: Passage) -> None:
        """Outcomes: `ok`, `refused` (4xx), `overloaded`, `failed` (5xx), `cut_short`, `deadline`, `client_gone`,
        `unserved` (no worker).
        """
        self.requests_total += 1
        self.bytes_total += passage.bytes_sent
        if passage.outcome in ("failed", "cut_short", "unserved"):
            self.failures_total += 1
        self._requests.labels(passage.worker_name, passage.outcome).inc()
        self._bytes.inc(passage.bytes_sent)
        self._duration.observe(passage.age_s)
        if passage.queued_s is not None:
            self._queue_wait.observe(passage.queued_s)
        if passage.first_byte_s is not None:
            self._first_byte.observe(passage.first_byte_s)
            self._size.observe(passage.bytes_sent)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)


class _State(Collector):
    """What there is at the moment it is asked for: workers that have gone leave nothing behind."""

    _OF_WORKER: ClassVar = {
        "balancer_in_flight": "Requests being served, by worker.",
        "balancer_pending_chars": "Characters of text being spoken or waiting, by worker.",
        "balancer_worker_ready": "1 while the worker takes requests.",
        "balancer_worker_ejections": "How often the worker was ejected since it came into the pool.",
    }

    def __init__(self, pool: WorkerPool, admission: Admission, lag: LoopLag) -> None:
        self._pool, self._admission, self._lag = pool, admission, lag

    def collect(self) -> Iterator[Metric]:
        families = {name: GaugeMetricFamily(name, said, labels=["worker"]) for name, said in self._OF_WORKER.items()}
        states = GaugeMetricFamily("balancer_worker_state", "1 for the worker's state.", labels=["worker", "state"])
        for worker in (*self._pool.workers, *self._pool.leaving):
            values = (worker.in_flight, worker.pending_chars, worker.state in SERVING, worker.ejections)
            for family, value in zip(families.values(), values, strict=True):
                family.add_metric([worker.name], float(value))
            for state in State:
                states.add_metric([worker.name, state], float(worker.state is state))
        waiting = GaugeMetricFamily("balancer_waiting", "Requests waiting for a place.", labels=["priority"])
        for priority, count in self._admission.waiting.items():
            waiting.add_metric([priority], count)
        lag = GaugeMetricFamily(
            "balancer_loop_lag_seconds", "The longest the event loop was late in the last 10 s.", self._lag.recent_s
        )
        yield from (*families.values(), states, waiting, lag)
