"""What real workers and balancers tell systemd, heard on a real datagram socket."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest

from fleet.notify import SOCKET_VARIABLE, notify, watchdog_s
from tests.running import RunningBalancer, RunningWorker, free_port, wait_for

PERIOD_US = 1_000_000


class Heard:
    """systemd's end of the socket: the fields of each message, in order, and who sent it."""

    def __init__(self, address: str) -> None:
        self.messages: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.messages.append(dict(line.split("=", 1) for line in message.decode().splitlines()))

    def all(self, field: str) -> list[str]:
        return [message[field] for message in list(self.messages) if field in message]

    def wait(self, field: str, value: str) -> None:
        wait_for(lambda: value in self.all(field))

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def untold_worker() -> Iterator[RunningWorker]:
    """A worker that no systemd has started."""
    with RunningWorker(free_port(0)) as worker:
        yield worker


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """What is started while this lasts takes the test for its systemd."""
    address = str(tmp_path / "notify")
    listener = Heard(address)
    monkeypatch.setenv(SOCKET_VARIABLE, address)
    monkeypatch.setenv("WATCHDOG_USEC", str(PERIOD_US))
    yield listener
    listener.close()


def test_worker_tells_its_life(heard: Heard) -> None:
    """READY comes once, with the engine open; the status names the engine and its figures; STOPPING is the end."""
    with RunningWorker(free_port(0), module="tests.workers.failing") as worker:
        wait_for(lambda: heard.all("READY"))
        assert httpx2.get(f"{worker.url}/ready", trust_env=False).status_code == 200
        assert heard.all("MAINPID") == [str(worker.process.pid)]
        heard.wait("STATUS", "espeak on cpu, 62 it/s, 0 speaking, 0 waiting")
        heard.wait("WATCHDOG", "1")
        assert not heard.all("STOPPING")
    assert heard.all("READY") == ["1"]
    assert heard.all("STOPPING") == ["1"]


def test_nothing_is_ready_while_the_engine_warms_up(heard: Heard) -> None:
    """A worker that listens already, but whose engine is still being opened, has told nothing."""
    worker = RunningWorker(free_port(0), module="tests.workers.opening")
    try:
        wait_for(lambda: "opening" in worker.log.read_text())
        assert not heard.messages
        worker.signal(signal.SIGUSR1)
    except BaseException:
        worker.kill()
        raise
    with worker:
        heard.wait("READY", "1")


def test_watchdog_is_fed_only_while_the_engine_makes_progress(heard: Heard) -> None:
    """While the engine's thread is stuck in a job no sign of life comes, and the status says why; then they return."""
    with RunningWorker(free_port(0)) as worker:
        heard.wait("WATCHDOG", "1")
        (speaker,) = psutil.Process(worker.process.pid).children()
        speaker.suspend()
        try:
            asking = threading.Thread(target=_speak, args=(worker.url,))
            asking.start()
            wait_for(lambda: any("has made no sound for" in told for told in heard.all("STATUS")))
            fed = len(heard.all("WATCHDOG"))
            time.sleep(2 * PERIOD_US / 1e6)
            assert len(heard.all("WATCHDOG")) == fed
        finally:
            speaker.resume()
        wait_for(lambda: len(heard.all("WATCHDOG")) > fed)
        asking.join(20)


def _speak(url: str) -> None:
    httpx2.post(f"{url}/synthesize", json={"text": "Good morning."}, timeout=30, trust_env=False)


STATES = {"READY", "RELOADING", "STOPPING"}


def test_balancer_tells_its_life(untold_worker: RunningWorker, heard: Heard, tmp_path: Path) -> None:
    """Its status counts workers and requests, SIGHUP is a reload, and its loop feeds the watchdog."""
    workers = tmp_path / "workers"
    workers.write_text(f"{untold_worker.url}\n")
    with RunningBalancer(workers_file=workers) as balancer:
        heard.wait("STATUS", "1 of 1 workers ready, 0 in flight, 0 waiting")
        heard.wait("WATCHDOG", "1")
        heard.wait("READY", "1")
        assert heard.all("MAINPID") == [str(balancer.process.pid)]
        workers.write_text(f"{untold_worker.url}\nhttp://127.0.0.1:{free_port(0)}\n")
        balancer.signal(signal.SIGHUP)
        heard.wait("RELOADING", "1")
        heard.wait("STATUS", "1 of 2 workers ready, 0 in flight, 0 waiting")
    heard.wait("STOPPING", "1")
    states = [state for told in heard.messages for state in told if state in STATES]
    assert states == ["READY", "RELOADING", "READY", "STOPPING"]


def test_abstract_address_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that begins with @ lies in the kernel's own namespace."""
    name = f"chatterbox-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        monkeypatch.setenv(SOCKET_VARIABLE, f"@{name}")
        notify(READY=1, STATUS="well")
        assert systemd.recv(100) == b"READY=1\nSTATUS=well"


def test_without_systemd_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, or a socket where nobody listens, is no fault."""
    monkeypatch.delenv(SOCKET_VARIABLE, raising=False)
    notify(READY=1)
    monkeypatch.setenv(SOCKET_VARIABLE, str(tmp_path / "nobody"))
    notify(READY=1)


@pytest.mark.parametrize(
    ("period_us", "pid", "seconds"),
    [("30000000", None, 30), ("30000000", "own", 30), ("30000000", "1", None), ("0", None, None), ("x", None, None)],
)
def test_watchdog_period_is_ones_own(
    period_us: str, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The period is in microseconds, and holds only for the process it names."""
    monkeypatch.setenv("WATCHDOG_USEC", period_us)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert watchdog_s() == seconds
