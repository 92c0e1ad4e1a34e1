"""What a fleet in the background leaves in its data directory: who it is, so that it is found again and nobody else."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from fleet.files import whole_file
from fleet.startup_errors import InvalidSettings

_STATE_FILE = "fleet.json"
_LOOK_EVERY_S = 0.05


class ProcessIdentity(BaseModel):
    """A process that can be told from a later one of the same pid. `started` is the boot's id and, since that boot, the
    clock ticks at which it began: setting the clock changes neither.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity:
        return cls(pid=pid, started=_started(pid) or "gone")

    def is_alive(self) -> bool:
        return _started(self.pid) == self.started

    def send(self, number: int) -> None:
        """A signal, which can reach no other process: the descriptor is taken before the process is looked at."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except OSError:
            return
        try:
            if self.is_alive():
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:  # it has ended meanwhile
            pass
        finally:
            os.close(descriptor)


class ChildRecord(BaseModel):
    """One of the supervisor's processes. `log` is a path."""

    name: str
    process: ProcessIdentity
    port: int
    log: Path


class RunState(BaseModel):
    """A fleet in the background. `flags` start it again; `failed_log` belongs to what `error` tells."""

    phase: Literal["starting", "running", "failed", "stopped"]
    supervisor: ProcessIdentity
    port: int
    flags: list[str]
    children: list[ChildRecord] = []
    error: str | None = None
    failed_log: Path | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def processes(self) -> list[ProcessIdentity]:
        return [self.supervisor, *(child.process for child in self.children)]

    def write(self, data: Path) -> None:
        with whole_file(data / _STATE_FILE) as file:
            file.write(self.model_dump_json(indent=2).encode())


def read_state(data: Path) -> RunState | None:
    """What was last written; none where nothing legible is. Raises `InvalidSettings` where we may not look."""
    try:
        return RunState.model_validate_json((data / _STATE_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
    except OSError as error:
        raise InvalidSettings(f"{data / _STATE_FILE} cannot be read: {error.strerror}") from None


@contextmanager
def only_one(
    data: Path,
    lock_name: str = "fleet.lock",
    taken: str = "another fleet already runs on {data}; give this one its own --data",
) -> Iterator[None]:
    """Hold the data directory, so that two fleets never write the same files."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / lock_name).open("w")
    except OSError as error:
        raise InvalidSettings(f"--data {data} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidSettings(taken.format(data=data)) from None
        yield


def stop_recorded(state: RunState, grace_s: float) -> bool:
    """End what the file names and nothing else; whether there was anything to end.

    The supervisor is asked, and ends its children; who is still there after `grace_s` seconds is killed.
    """
    alive = [process for process in state.processes() if process.is_alive()]
    if not alive:
        return False
    for process in [state.supervisor] if state.supervisor in alive else alive:
        process.send(signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while any(process.is_alive() for process in alive):
        if time.monotonic() > deadline:
            for process in alive:
                process.send(signal.SIGKILL)
        time.sleep(_LOOK_EVERY_S)
    return True


def _started(pid: int) -> str | None:
    """When a process began, as Linux tells it; none when there is no such process, or a dead one not yet buried."""
    try:
        # The name, in parentheses, may hold anything: what follows it is the state and, 19 fields on, the start.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
