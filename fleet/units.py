"""A fleet that systemd keeps: `chatterbox.target`, a worker's unit per GPU, and the balancer's."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence

from fleet.contract import WorkerStats
from fleet.errors import InvalidValue, Unreachable
from fleet.fleet_table import Row, balancer_state, silent_row, stats_of, worker_row
from fleet.installed import output, show
from fleet.up_plan import BALANCER

TARGET = "chatterbox.target"
BALANCER_UNIT = "chatterbox-balancer.service"
WORKER_UNITS = "chatterbox-worker@*.service"

_SHOWN = ("Id", "ActiveState", "SubState", "MainPID", "StatusText")
_INSTANCE = re.compile(r"(?:(?:gpu|worker-?|chatterbox-worker@)?)(\d+)(?:\.service)?")


def are_installed() -> bool:
    """Whether systemd runs here and knows the target."""
    if shutil.which("systemctl") is None:
        return False
    try:
        return TARGET in output(["systemctl", "list-unit-files", "--no-legend", "--no-pager", TARGET])
    except Unreachable:
        return False


class Units:
    """The units, by way of `systemctl` and `journalctl`; who may not change them is told so by systemd itself."""

    kept_by = "systemd"
    url = None

    def start(self, given: Sequence[str]) -> bool:
        _require_no_flags(given)
        ran = _is_active()
        output(["systemctl", "start", TARGET])
        return not ran

    def stop(self) -> bool:
        ran = _is_active()
        output(["systemctl", "stop", TARGET])
        return ran

    def restart(self, given: Sequence[str]) -> None:
        _require_no_flags(given)
        output(["systemctl", "restart", TARGET])

    def rows(self) -> list[Row]:
        told = output(["systemctl", "show", f"--property={','.join(_SHOWN)}", WORKER_UNITS, BALANCER_UNIT])
        units = [dict(line.split("=", 1) for line in block.splitlines()) for block in told.strip().split("\n\n")]
        loaded = [unit for unit in units if unit.get("ActiveState", "inactive") != "inactive"]
        stats = stats_of(None) if loaded else None
        workers = {worker.health.pid: worker for worker in stats.workers if worker.health} if stats else {}
        rows = []
        for unit in sorted(loaded, key=lambda unit: (unit["Id"] == BALANCER_UNIT, len(unit["Id"]), unit["Id"])):
            row = _row(unit, workers)
            if unit["Id"] == BALANCER_UNIT and stats is not None:
                row = silent_row(row.worker, row.port, row.pid, balancer_state(stats))
            rows.append(row)
        return rows

    def show_logs(self, name: str | None, *, follow: bool, lines: int) -> int:
        units = [WORKER_UNITS, BALANCER_UNIT] if name is None else [unit_of(name)]
        command = ["journalctl", "--no-pager", f"--lines={lines}", *(f"--unit={unit}" for unit in units)]
        return show([*command, *(["--follow"] if follow else [])])


def unit_of(name: str) -> str:
    """`balancer`, `gpu0`, `worker-0`, `0` or a unit's own name. Raises `InvalidValue`."""
    if name in (BALANCER, "loadbalancer", BALANCER_UNIT):
        return BALANCER_UNIT
    if found := _INSTANCE.fullmatch(name):
        return WORKER_UNITS.replace("*", found[1])
    raise InvalidValue(f"no unit is called {name!r}; say {BALANCER}, or a worker's number")


def _row(unit: dict[str, str], workers: dict[int, WorkerStats]) -> Row:
    name = unit["Id"].removesuffix(".service").removeprefix("chatterbox-")
    pid = unit.get("MainPID", "0")
    if pid.isdigit() and int(pid) in workers:
        return worker_row(workers[int(pid)].name, workers[int(pid)], pid)
    state = f"{unit['ActiveState']} ({unit.get('SubState', '')})"
    if unit.get("StatusText"):
        state += f": {unit['StatusText']}"
    return silent_row(name, "-", "-" if pid == "0" else pid, state)


def _is_active() -> bool:
    return "ActiveState=active" in output(["systemctl", "show", "--property=ActiveState", TARGET]).splitlines()


def _require_no_flags(given: Sequence[str]) -> None:
    if given:
        raise InvalidValue(f"{' '.join(given)}: units take no flags; settings go into their environment files")
