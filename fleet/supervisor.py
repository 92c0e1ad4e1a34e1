"""A fleet's processes as one: started together, watched, started again when they die, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet.server import LIFELINE_VARIABLE
from fleet.startup_errors import ChildDied, InvalidSettings

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_SETTLED_S = 60.0
"""A child that has lived this long counts as healthy again."""

_OLD_LOGS = 5
"""Logs of earlier starts that are kept: `NAME.log.1` is the latest."""


@dataclass(frozen=True, slots=True)
class Program:
    """What a child runs: a module of ours under a name, with settings in its environment; its log file's name."""

    name: str
    module: str
    environment: Mapping[str, str]
    log: str


class Child:
    """One process in a session of its own, its output in a log file, its life bound to ours by a pipe."""

    def __init__(self, program: Program, log_path: Path) -> None:
        self.name = program.name
        self.log_path = log_path
        self._program = program
        self._our_end: int | None = None
        self._restart_at: float | None = None
        self._pause_s = _FIRST_PAUSE_S
        rotate(log_path)
        self._start()

    def _start(self) -> None:
        self._let_go()
        lifeline, self._our_end = os.pipe()
        os.set_inheritable(lifeline, True)
        with os.fdopen(lifeline, "rb", buffering=0), self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._program.module],
                env={**os.environ, **self._program.environment, LIFELINE_VARIABLE: str(lifeline)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(lifeline,),
                start_new_session=True,
            )
        self._started_at = time.monotonic()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def last_words(self) -> str:
        """The error it ended with, else the last line it wrote."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (errors or lines or [f"exit code {self.exit_code}"])[-1]

    def revive(self) -> str | None:
        """Start it again if it has died and paused long enough; returns what there is to tell."""
        if self.exit_code is None:
            if time.monotonic() - self._started_at > _SETTLED_S:
                self._pause_s = _FIRST_PAUSE_S
            return None
        if self._restart_at is None:
            self._restart_at = time.monotonic() + self._pause_s
            return f"{self.name} ended with code {self.exit_code}; starting it again in {self._pause_s:g} s"
        if time.monotonic() < self._restart_at:
            return None
        self._restart_at, self._pause_s = None, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        try:
            self._start()
        except OSError as error:  # A full disk, say: the others go on, and this one is tried again.
            self._restart_at = time.monotonic() + self._pause_s
            return f"{self.name} could not be started: {error.strerror}; trying again in {self._pause_s:g} s"
        return None

    def ask_to_stop(self) -> None:
        if self.exit_code is None:
            self._process.send_signal(signal.SIGTERM)

    def stop(self, deadline: float) -> None:
        """Wait for its end until `deadline` on the monotonic clock, then kill its whole session."""
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._let_go()

    def _let_go(self) -> None:
        """Close our end of the lifeline."""
        if self._our_end is not None:
            os.close(self._our_end)
            self._our_end = None


def rotate(log_path: Path) -> None:
    """Make room for a new log; the earlier ones move on by one, and the oldest goes. Raises OSError."""
    for age in range(_OLD_LOGS, 0, -1):
        older = log_path.with_name(f"{log_path.name}.{age}")
        newer = log_path.with_name(f"{log_path.name}.{age - 1}") if age > 1 else log_path
        if newer.exists():
            newer.replace(older)


@contextmanager
def signals_ignored() -> Iterator[None]:
    """Let the children end in peace; a supervisor killed outright still takes them along."""
    before = {
        number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Supervisor:
    """The children of one fleet, in the order they are started; they are asked to stop from the last to the first."""

    def __init__(self, log_directory: Path) -> None:
        self._log_directory = log_directory
        self._children: list[Child] = []

    @property
    def children(self) -> Sequence[Child]:
        return tuple(self._children)

    def dead(self) -> Child | None:
        """The first child that has ended."""
        return next((child for child in self._children if child.exit_code is not None), None)

    def start(self, programs: Sequence[Program]) -> None:
        """After those that run already. Raises `InvalidSettings` when the log files cannot be written."""
        try:
            self._log_directory.mkdir(parents=True, exist_ok=True)
            for program in programs:
                self._children.append(Child(program, self._log_directory / program.log))
        except OSError as error:
            raise InvalidSettings(f"cannot write logs to {self._log_directory}: {error.strerror}") from None

    def require_alive(self) -> None:
        """Raise `ChildDied` with the last words of the first child that has ended."""
        child = self.dead()
        if child is not None:
            raise ChildDied(f"{child.name}: {child.last_words()}")

    def revive(self) -> list[str]:
        """Start again what has died; returns a line for each thing worth telling."""
        return [told for child in self._children if (told := child.revive()) is not None]

    def stop(self, grace_s: float) -> None:
        """Stop every child; one that has not ended after `grace_s` seconds is killed."""
        deadline = time.monotonic() + grace_s
        for child in reversed(self._children):
            child.ask_to_stop()
        for child in reversed(self._children):
            child.stop(deadline)
        self._children.clear()
