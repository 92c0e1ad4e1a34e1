"""The fleet of this machine as a table: what runs where, and how it does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from urllib.parse import urlsplit

from fleet.client import FleetClient
from fleet.contract import FleetStats, WorkerHealth, WorkerStats
from fleet.errors import FleetError
from fleet.own_health import health
from fleet.run_state import ChildRecord, RunState
from fleet.up_plan import BALANCER

_UNKNOWN = "-"
_SPEAKING = ("ready", "degraded", "active (running)")


@dataclass(frozen=True, slots=True)
class Row:
    """A process of the fleet, as it is shown."""

    worker: str
    device: str
    engine: str
    port: str
    pid: str
    state: str

    def speaks(self) -> bool:
        """Whether this is a worker that takes requests, as far as is known."""
        return self.state.partition(":")[0] in _SPEAKING and not self.worker.startswith(BALANCER)


def table(rows: Sequence[Row]) -> str:
    """Columns under their names, as wide as they need to be."""
    lines = [tuple(field.name for field in fields(Row)), *(astuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [[word.ljust(width) for word, width in zip(line, widths, strict=True)] for line in lines]
    return "\n".join("  ".join(words).rstrip() for words in padded)


def stats_of(url: str | None) -> FleetStats | None:
    """What the balancer tells; none when it does not answer, or not to us."""
    try:
        with FleetClient(url) as client:
            return client.stats()
    except FleetError:
        return None


def worker_row(name: str, worker: WorkerStats, pid: str) -> Row:
    """A worker of which the balancer tells."""
    told = worker.health
    return Row(
        worker=name,
        device=told.device if told else _UNKNOWN,
        engine=told.engine if told else _UNKNOWN,
        port=str(urlsplit(worker.url).port or _UNKNOWN),
        pid=pid,
        state=f"{worker.state}: {worker.reason}" if worker.reason else worker.state,
    )


def silent_row(name: str, port: str, pid: str, state: str) -> Row:
    """A process of which no more is known than that it is there, or is not."""
    return Row(worker=name, device=_UNKNOWN, engine=_UNKNOWN, port=port, pid=pid, state=state)


def balancer_state(stats: FleetStats) -> str:
    return f"{stats.totals.ready} of {stats.totals.workers} workers ready"


def running_rows(state: RunState) -> list[Row]:
    """The processes of a fleet in the background, its supervisor last."""
    stats = stats_of(state.url)
    rows = [_child_row(child, stats) for child in state.children]
    alive = state.supervisor.is_alive()
    supervisor = silent_row("supervisor", _UNKNOWN, _pid(alive, state.supervisor.pid), state.phase if alive else "gone")
    return [*rows, supervisor]


def _child_row(child: ChildRecord, stats: FleetStats | None) -> Row:
    alive = child.process.is_alive()
    pid = _pid(alive, child.process.pid)
    if not alive:
        return silent_row(child.name, str(child.port), pid, "dead")
    if child.name == BALANCER:
        return silent_row(child.name, str(child.port), pid, balancer_state(stats) if stats else "running")
    for worker in stats.workers if stats else []:
        if urlsplit(worker.url).port == child.port:
            return worker_row(child.name, worker, pid)
    told = health(child.port, WorkerHealth)  # which needs no key
    if told is None:
        return silent_row(child.name, str(child.port), pid, "running, does not answer")
    state = "ready" if told.ready else f"not ready: {told.reason}"
    return Row(child.name, told.device, told.engine, str(child.port), pid, state)


def _pid(alive: bool, pid: int) -> str:  # noqa: FBT001 - a table's cell
    return str(pid) if alive else _UNKNOWN
