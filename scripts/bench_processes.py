"""Processes that are measured or measured over, and what is known of them from outside."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import httpx2
import psutil
from bench_streams import HOST

_START_LIMIT_S, _STOP_LIMIT_S = 60.0, 15.0
HTTP = httpx2.Client(timeout=30, trust_env=False)


@dataclass(frozen=True, slots=True)
class Way:
    """A process that speech can be asked of, and how: its port."""

    name: str
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def cpu_s(self) -> float:
        """What it and its children have taken since they began."""
        taken = 0.0
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                taken += times.user + times.system
        return taken

    def rss_mib(self) -> float:
        return round(sum(process.memory_info().rss for process in self._all()) / 2**20, 1)

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


class NotStarted(Exception):
    """A process did not come up; what it said is in the message."""


class Processes:
    """Children with a log file each, stopped together. `ways` are in the order in which they were first started."""

    def __init__(self, folder: Path) -> None:
        self.ways: list[Way] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._children: list[subprocess.Popen[bytes]] = []
        self._commands: list[tuple[list[str], Mapping[str, str]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.terminate()
        for child in self._children:
            try:
                child.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def start(self, name: str, port: int, command: list[str], environment: Mapping[str, str] | None = None) -> Way:
        self._commands.append((command, environment or {}))
        self._children.append(self._run(name, *self._commands[-1]))
        self.ways.append(Way(name, port, psutil.Process(self._children[-1].pid)))
        return self.ways[-1]

    def end(self, number: int, how: signal.Signals) -> None:
        """Of the one at this place in `ways`, by this signal; it is waited for."""
        self._children[number].send_signal(how)
        self._children[number].wait(_STOP_LIMIT_S)

    def again(self, number: int) -> None:
        """Start what has ended, as it was started first."""
        child = self._children[number] = self._run(self.ways[number].name, *self._commands[number])
        self.ways[number] = replace(self.ways[number], process=psutil.Process(child.pid))

    def _run(self, name: str, command: list[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._log(name).open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **environment})

    def wait_ready(self, way: Way, *, workers: int = 0) -> None:
        """Until `/ready` is answered with 200 and so many `workers` are ready. Raises `NotStarted`."""
        child = self._children[self.ways.index(way)]
        deadline = time.monotonic() + _START_LIMIT_S
        while child.poll() is None and time.monotonic() < deadline:
            with suppress(httpx2.HTTPError):
                ready = HTTP.get(f"{way.url}/ready").status_code == 200
                if ready and (not workers or total(way, "ready") == workers):
                    return
            time.sleep(0.05)
        said = self._log(way.name).read_text(errors="replace")[-2000:]
        raise NotStarted(f"{way.name} did not come up: {said}")

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


class Shares:
    """In cores, since this was made: what a way, the workers and this program took, and what nobody on the machine did.

    Little of the latter says that a way may have waited for a core, whatever it took.
    """

    def __init__(self, way: Way, tones: Sequence[Way]) -> None:
        self._way, self._tones = way, tones
        self._before = self._taken()

    def _taken(self) -> list[float]:
        tones = sum(tone.cpu_s() for tone in self._tones)
        return [time.monotonic(), self._way.cpu_s(), time.process_time(), tones, psutil.cpu_times().idle]

    def now(self) -> dict[str, float]:
        seconds, *taken = (after - before for before, after in zip(self._before, self._taken(), strict=True))
        names = ("cpu", "client_cpu", "workers_cpu", "idle_cpu")
        return {name: round(each / seconds, 4) for name, each in zip(names, taken, strict=True)}


def free_port() -> int:
    """Below the range that the kernel gives to outgoing connections, which would take it at any moment."""
    while True:
        port = random.randrange(12_000, 30_000)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def stats(way: Way) -> dict[str, Any]:
    """The balancer's."""
    found: dict[str, Any] = HTTP.get(f"{way.url}/stats").json()
    return found


def total(way: Way, name: str) -> int:
    return int(stats(way)["totals"][name])


def idle_again(way: Way, limit_s: float) -> float | None:
    """Seconds until the balancer counts nothing in flight; None if it never does."""
    began = time.monotonic()
    while time.monotonic() < began + limit_s:
        if total(way, "in_flight") == 0:
            return round(time.monotonic() - began, 2)
        time.sleep(0.1)
    return None
