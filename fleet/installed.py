"""What can be done with the fleet of this machine, whoever keeps its processes: one interface for both."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Protocol

from fleet.errors import Unreachable
from fleet.fleet_table import Row


class InstalledFleet(Protocol):
    """systemd's units, or the processes of `scripts/up --production`. Every method may raise `FleetError`."""

    @property
    def kept_by(self) -> str:
        """Whom to name as the one that keeps the processes."""

    @property
    def url(self) -> str | None:
        """The balancer's address; none for the client's default."""

    def start(self, given: Sequence[str]) -> bool:
        """Start what is not running; `given` are flags for those who take any. False when it ran already."""

    def stop(self) -> bool:
        """End all of it. False when nothing ran."""

    def restart(self, given: Sequence[str]) -> None:
        """End all of it and start it again; requests fail meanwhile."""

    def rows(self) -> list[Row]:
        """What runs; empty when the fleet is stopped."""

    def show_logs(self, name: str | None, *, follow: bool, lines: int) -> int:
        """The last lines of all logs, or of one, to standard output; returns the exit code."""


def show(command: Sequence[str]) -> int:
    """Run a program that writes to our own output; Ctrl-C ends it, and not us. Raises `Unreachable`."""
    sys.stdout.flush()
    try:
        with subprocess.Popen(command) as process:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                return 0
    except FileNotFoundError:
        raise Unreachable(f"{command[0]} is not installed") from None


def output(command: Sequence[str]) -> str:
    """What a program answers. Raises `Unreachable` with its own words when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unreachable(f"{command[0]} is not installed") from None
    if done.returncode != 0:
        words = done.stderr.strip() or f"exit code {done.returncode}"
        raise Unreachable(f"{' '.join(command)}: {words}")
    return done.stdout
