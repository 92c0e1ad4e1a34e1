"""The workers, who of them may be asked next, and who must not be in one pool with the others."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

import structlog

from balancer.policy import Ask, Policy
from balancer.worker import SERVING, Clock, HealthRules, State, Worker
from fleet.contract import WorkerHealth
from fleet.errors import NotReady

log = structlog.get_logger()

_LONGEST_RETRY_S = 60.0


class WorkerPool:
    """Workers from several sources (the settings, a name, registrations) and the policy that chooses among them.

    `mixed_models` lets workers of different engines or models stand side by side: a request is then served by those
    whose model it names, and one that names none of them by those that speak the model of the first worker.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        rules: HealthRules | None = None,
        mixed_models: bool = False,
        probe_interval_s: float = 1.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self.policy = policy
        self.workers: list[Worker] = []
        self.leaving: list[Worker] = []
        """Taken out, with requests still in flight."""
        self.listeners: list[Callable[[], None]] = []
        """Called when a worker comes, goes or changes its state."""
        self._rules = rules or HealthRules()
        self._mixed_models, self._probe_interval_s, self._clock = mixed_models, probe_interval_s, clock
        self._sources: dict[str, set[str]] = {}
        self._serving: list[Worker] | None = None
        """Those that take requests, as of the last change."""

    # Who belongs to it

    def sync(self, source: str, urls: Iterable[str]) -> None:
        """From now on these are the workers that `source` names; one that another source names too stays."""
        self._sources[source] = set(urls)
        wanted = set().union(*self._sources.values())
        for worker in [worker for worker in self.workers if worker.url not in wanted]:
            self._take_out(worker)
        known = {worker.url for worker in self.workers}
        for url in urls:
            if url not in known:
                self._take_in(url)
        self.changed()

    def named_by(self, source: str) -> frozenset[str]:
        return frozenset(self._sources.get(source, ()))

    def _take_in(self, url: str) -> None:
        known = next((worker for worker in self.leaving if worker.url == url), None)
        if known is not None:  # it comes back before its last request has ended
            self.leaving.remove(known)
            known.resume()
        else:
            known = Worker(
                url, rules=self._rules, clock=self._clock, may_eject=self._may_eject, changed=lambda _: self.changed()
            )
        self.workers.append(known)
        log.info("worker_added", url=url)

    def _take_out(self, worker: Worker) -> None:
        self.workers.remove(worker)
        self.leaving.append(worker)
        worker.drain("it was taken out of the pool")
        log.info("worker_removed", worker=worker.name, url=worker.url)

    def changed(self) -> None:
        """A worker came, went, changed its state, or has a free place."""
        self._serving = None
        self.leaving = [worker for worker in self.leaving if worker.in_flight]
        for listener in self.listeners:
            listener()

    def find(self, name: str) -> Worker | None:
        """A worker by its name, its address, or the host and port of that."""
        names = (name, f"http://{name}", f"https://{name}")
        return next((worker for worker in self.workers if worker.name == name or worker.url in names), None)

    def _may_eject(self, worker: Worker) -> bool:
        """Whether failed requests may eject one more: never the last that serves, and no more than their share."""
        others_out = sum(other.state in (State.ejected, State.dead) for other in self.workers if other is not worker)
        others_serve = any(other.state in SERVING for other in self.workers if other is not worker)
        return others_serve and (others_out + 1) <= self._rules.most_ejected * len(self.workers)

    def conflict(self, worker: Worker, health: WorkerHealth) -> str | None:
        """Why a worker with this health must not join those that serve."""
        for other in self.workers:
            if other is worker or other.state not in SERVING or other.health is None:
                continue
            theirs = other.health
            if None not in (theirs.store_id, health.store_id) and theirs.store_id != health.store_id:
                return f"its library of voices is another one than that of {other.name}"
            if not self._mixed_models and (theirs.engine, theirs.model) != (health.engine, health.model):
                return (
                    f"it speaks with {health.engine} ({health.model}), {other.name} with {theirs.engine} "
                    f"({theirs.model}); BALANCER_MIXED_MODELS=true lets them stand side by side"
                )
        return None

    # Who may be asked

    def serving(self, ask: Ask | None = None, *, excluding: Collection[Worker] = ()) -> list[Worker]:
        """Those that take requests, with a free place or without; with `ask`, those that speak its model."""
        if self._serving is None:
            self._serving = [worker for worker in self.workers if worker.state in SERVING]
        able = [worker for worker in self._serving if worker not in excluding] if excluding else self._serving
        return able if ask is None or not self._mixed_models else self._of_model(ask.model, able)

    def _of_model(self, model: str | None, able: list[Worker]) -> list[Worker]:
        known = [worker.health.model for worker in self.workers if worker.health is not None]
        wanted = model if model in known else next(iter(known), None)
        return [worker for worker in able if worker.health is not None and worker.health.model == wanted]

    def kind_of(self, ask: Ask) -> str | None:
        """Requests of one kind are served by the same workers."""
        return ask.model if self._mixed_models else None

    def choose(self, ask: Ask, *, excluding: Collection[Worker] = (), with_place: bool = True) -> Worker | None:
        """The next worker to ask, None while all have their hands full. Raises `NotReady` when there is none at all.

        `with_place=False` is for what is no speech, and needs no place.
        """
        able = self.serving(ask, excluding=excluding)
        if not able:
            raise self.not_ready(ask)
        free = [worker for worker in able if worker.has_place] if with_place else able
        first = [worker for worker in free if worker.state is not State.degraded] or free
        return self.policy.choose(first, self.workers, ask) if first else None

    def not_ready(self, ask: Ask | None = None) -> NotReady:
        """What to say while nothing serves, and when something may."""
        able = self.workers if ask is None or not self._mixed_models else self._of_model(ask.model, self.workers)
        waits = [worker.retry_in_s for worker in able if worker.state is not State.draining]
        retry_s = max(1.0, self._probe_interval_s, min(waits, default=_LONGEST_RETRY_S))
        return NotReady("no worker is ready to speak", retry_after=min(retry_s, _LONGEST_RETRY_S))

    def models(self) -> list[Worker]:
        """One serving worker for each model, in the pool's order."""
        by_model: dict[str, Worker] = {}
        for worker in self.serving():
            if worker.health is not None:
                by_model.setdefault(worker.health.model, worker)
        return list(by_model.values())
