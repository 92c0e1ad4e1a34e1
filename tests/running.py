"""A real fleet in real processes, for tests."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import httpx2
import psutil

from fleet.contract import FleetStats

ROOT = Path(__file__).parent.parent
READY_LIMIT_S = 60.0


def free_port(following: int = 10) -> int:
    """A port that is free, and whose next `following` ports are free too."""
    while True:
        # Below the range that the kernel gives to outgoing connections, which would take one of them at any moment.
        port = random.randrange(12_000, 30_000)
        if all(_is_free(port + offset) for offset in range(following + 1)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_for(condition: object, limit_s: float = 20.0, every_s: float = 0.05) -> None:
    """Poll a callable until it is true; fail after `limit_s`."""
    assert callable(condition)
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit_s} s: {condition}"
        time.sleep(every_s)


class RunningFleet:
    """`fleet.up` as a child, ready on entry and stopped on exit."""

    def __init__(self, data: Path, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.data = data
        command = [sys.executable, "-P", "-m", "fleet.up", "--port", str(self.port), "--data", str(data), *flags]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        self.output: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.output.extend(self.process.stdout)

    def __enter__(self) -> Self:
        wait_for(self._is_settled, READY_LIMIT_S)
        assert self.process.poll() is None, "".join(self.output)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _is_settled(self) -> bool:
        return self.process.poll() is not None or any(line.startswith("ready:") for line in self.output)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def stats(self) -> FleetStats:
        return FleetStats.model_validate_json(httpx2.get(f"{self.url}/stats", trust_env=False).content)

    def worker_urls(self) -> list[str]:
        return [worker.url for worker in self.stats().workers]

    def worker_pids(self) -> list[int]:
        return [worker.health.pid for worker in self.stats().workers if worker.health is not None]

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


class _RunningServer:
    """A server as a child of its own, entered once it answers; Python is given the arguments."""

    def __init__(self, *arguments: str, port: int, environment: Mapping[str, str] | None = None) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, "-P", *arguments]
        self.log = Path(tempfile.mkdtemp()) / "log"
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self.start()

    def start(self) -> None:
        """Again, when it has ended."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stderr=log, env=self._environment)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def __enter__(self) -> Self:
        try:
            wait_for(self._answers, READY_LIMIT_S)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(20)
        shutil.rmtree(self.log.parent)

    def _answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return httpx2.get(f"{self.url}/health", trust_env=False).status_code == 200
        except (httpx2.ConnectError, httpx2.ReadTimeout):  # it listens, but its engine is being opened
            return False


class RunningWorker(_RunningServer):
    """`python -m workers` on the espeak engine, or another module that runs one; settings by their names."""

    def __init__(self, port: int, *, module: str = "workers", **settings: object) -> None:
        named = {f"CHATTERBOX_{name.upper()}": str(value) for name, value in settings.items()}
        environment = {"CHATTERBOX_PORT": str(port), "CHATTERBOX_ENGINE": "espeak", **named}
        super().__init__("-m", module, port=port, environment=environment)


class RunningTone(_RunningServer):
    """`scripts/tone_worker.py`: a worker whose pace and places are known; its flags by their names."""

    def __init__(self, name: str = "tone-0", **flags: object) -> None:
        port = free_port(0)
        given = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", str(value))]
        script = str(ROOT / "scripts/tone_worker.py")
        super().__init__(script, "--port", str(port), "--name", name, *given, port=port)


class RunningBalancer(_RunningServer):
    """`python -m balancer` over given addresses; settings by their names."""

    def __init__(self, *worker_urls: str, **settings: object) -> None:
        port = free_port(0)
        named = {f"BALANCER_{name.upper()}": str(value) for name, value in settings.items()}
        given = {"BALANCER_WORKERS": ",".join(worker_urls)} if worker_urls else {}
        environment = {"BALANCER_PORT": str(port), **given, **named}
        super().__init__("-m", "balancer", port=port, environment=environment)

    def stats(self) -> FleetStats:
        return FleetStats.model_validate_json(httpx2.get(f"{self.url}/stats", trust_env=False).content)

    def __exit__(self, *_: object) -> None:
        said = self.log.read_text(errors="replace")
        super().__exit__()
        for fault in ("Traceback", "Exception in callback", "never retrieved"):
            assert fault not in said, said[max(0, said.index(fault) - 1000) :][:3000]

    def stats_with(self, key: str) -> FleetStats:
        headers = {"authorization": f"Bearer {key}"}
        return FleetStats.model_validate_json(httpx2.get(f"{self.url}/stats", headers=headers, trust_env=False).content)

    def wait_ready(self, count: int) -> None:
        wait_for(lambda: self.stats().totals.ready == count)

    def states(self) -> list[str]:
        return [worker.state for worker in self.stats().workers]

    def wait_states(self, *states: str, limit_s: float = 10) -> None:
        wait_for(lambda: self.states() == list(states), limit_s)

    def wait_idle(self, limit_s: float = 1.0) -> None:
        """Nothing in flight and nothing waiting: what is asserted at the end of every fault."""

        def idle() -> bool:
            totals = self.stats().totals
            return totals.in_flight == 0 and not any(totals.waiting.values())

        wait_for(idle, limit_s)


def in_flight(fleet: RunningFleet) -> int:
    """Requests counted anywhere, running or waiting: the balancer's gauge and every worker's engine.

    A readiness trial counts too, for some milliseconds: to be waited for, not asserted at once.
    """
    return fleet.stats().totals.in_flight + sum(sum(jobs(url)) for url in fleet.worker_urls())


def jobs(worker_url: str) -> tuple[int, int]:
    """A worker's running and queued jobs at this moment."""
    health = httpx2.get(f"{worker_url}/health", trust_env=False).json()
    return int(health["running_jobs"]), int(health["queued_jobs"])
