"""A fleet that `scripts/up --production` keeps in the background."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleet import production
from fleet.errors import InvalidValue
from fleet.fleet_table import Row, running_rows
from fleet.installed import show
from fleet.run_state import RunState, only_one, read_state, stop_recorded
from fleet.up_plan import BALANCER, parse

_ALIASES = {"loadbalancer": BALANCER}


class Processes:
    """The fleet of one data directory."""

    kept_by = "scripts/up --production"

    def __init__(self, data: Path) -> None:
        self._data = data

    @property
    def url(self) -> str | None:
        state = read_state(self._data)
        return None if state is None else state.url

    def start(self, given: Sequence[str]) -> bool:
        """With the flags of `scripts/up`; without any, those of the last start. Whether it was not running."""
        state = read_state(self._data)
        if state is not None and state.supervisor.is_alive():
            return False
        self._launch(state, given)
        return True

    def stop(self) -> bool:
        with only_one(self._data, production.STARTING_LOCK, production.BEING_CHANGED):
            state = read_state(self._data)
            return state is not None and stop_recorded(state, production.REPLACE_GRACE_S)

    def restart(self, given: Sequence[str]) -> None:
        self._launch(read_state(self._data), given)

    def _launch(self, state: RunState | None, given: Sequence[str]) -> None:
        if any(flag.partition("=")[0] == "--data" for flag in given):
            raise InvalidValue("--data stands before the command, as it is scripts/manage's own")
        last = state.flags if state is not None else []
        production.launch(parse([*(given or last), "--data", str(self._data), "--production"]))

    def rows(self) -> list[Row]:
        state = read_state(self._data)
        if state is None or state.phase == "stopped":
            return []
        return running_rows(state)

    def show_logs(self, name: str | None, *, follow: bool, lines: int) -> int:
        logs = self._logs()
        if name is not None:
            known = _ALIASES.get(name, name)
            if known not in logs:
                raise InvalidValue(f"no log is called {name!r}; there are: {', '.join(logs)}")
            logs = {known: logs[known]}
        return show(["tail", f"--lines={lines}", *(["-F"] if follow else []), *map(str, logs.values())])

    def _logs(self) -> dict[str, Path]:
        state = read_state(self._data)
        if state is None:
            raise InvalidValue(f"no fleet has been started on {self._data}")
        logs = {child.name: child.log for child in state.children}
        return {**logs, production.SUPERVISOR: self._data / "logs" / production.SUPERVISOR_LOG}
