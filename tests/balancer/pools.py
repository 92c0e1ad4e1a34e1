"""Workers and pools on a clock of the tests' own."""

from __future__ import annotations

from typing import Any

from balancer.policy import RoundRobin
from balancer.pool import WorkerPool
from balancer.worker import HealthRules, State, Worker

RULES = HealthRules(rise=1, fall=2, failures=3, ejection_s=5, longest_ejection_s=60, trial_s=10, slow_start_s=10)


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def a_worker(clock: Clock, **changes: Any) -> Worker:
    return Worker("http://w", rules=HealthRules(**{**vars_of(RULES), **changes}), clock=clock)


def state_of(worker: Worker) -> State:
    """As it is now: the type checker takes a property for something that stays."""
    return worker.state


def vars_of(rules: HealthRules) -> dict[str, Any]:
    return {name: getattr(rules, name) for name in HealthRules.__slots__}


def a_pool(clock: Clock, count: int = 3, **settings: Any) -> WorkerPool:
    pool = WorkerPool(RoundRobin(), rules=RULES, clock=clock, **settings)
    pool.sync("settings", [f"http://w{n}" for n in range(count)])
    for worker in pool.workers:
        worker.probe_succeeded()
    return pool
