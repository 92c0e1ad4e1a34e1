"""`fleet.up --production`: a fleet that stays, is found again, mends itself and is replaced; nobody else is touched."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from fleet.run_state import ChildRecord, ProcessIdentity, RunState, read_state, stop_recorded
from fleet.startup_errors import InvalidSettings
from fleet.supervisor import rotate
from fleet.up_plan import parse, plan
from tests.running import ROOT, free_port, wait_for


def up(data: Path, *given: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "fleet.up", "--production", "--data", str(data), *given]
    told = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=told)


def state_of(data: Path) -> RunState:
    state = read_state(data)
    assert state is not None
    return state


def pids(data: Path) -> dict[str, int]:
    return {child.name: child.process.pid for child in state_of(data).children}


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A data directory on which nothing runs afterwards."""
    yield tmp_path
    state = read_state(tmp_path)
    if state is not None:
        stop_recorded(state, 20)


def test_fleet_stays_mends_itself_and_is_replaced(data: Path) -> None:
    """It has spoken and says what runs; a killed worker comes back; a second start ends the first, logs are kept."""
    port = str(free_port())
    started = up(data, "--engine", "espeak", "--port", port)
    assert started.returncode == 0, started.stderr
    shown = started.stdout.splitlines()
    assert shown[0].split() == ["worker", "device", "engine", "port", "pid", "state"]
    assert [line.split()[0] for line in shown[1:5]] == ["cpu0", "cpu1", "balancer", "supervisor"]
    first = pids(data)
    assert shown[1].split() == ["cpu0", "cpu", "espeak", str(int(port) + 5), str(first["cpu0"]), "ready"]
    assert shown[5].startswith("spoke ")
    logs = data / "logs"
    names = ["cpu0_server.log", "cpu1_server.log", "loadbalancer.log", "supervisor.log"]
    assert sorted(path.name for path in logs.iterdir()) == names

    os.kill(first["cpu0"], signal.SIGKILL)
    wait_for(lambda: pids(data)["cpu0"] != first["cpu0"], 20)
    wait_for(lambda: httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False).json()["ready"] == 2, 30)
    assert "cpu0 ended with code -9" in (logs / "supervisor.log").read_text()

    before = state_of(data)
    again = up(data, "--engine", "espeak", "--port", port)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("stopped the fleet that ran before\n")
    assert not any(process.is_alive() for process in before.processes())
    assert all(process.is_alive() for process in state_of(data).processes())
    assert {f"{name}.1" for name in names} <= {path.name for path in logs.iterdir()}

    state_of(data).supervisor.send(signal.SIGKILL)
    wait_for(lambda: not any(process.is_alive() for process in state_of(data).processes()), 40)


def test_failed_start_says_why_and_leaves_nothing(data: Path) -> None:
    """What failed, in its own words, with the last lines of its log; a non-zero code, and no process."""
    failed = up(data, "--engine", "espeak", "--device", "cuda", "--workers", "1", "--port", str(free_port()))
    assert (failed.returncode, failed.stdout) == (1, "")
    said = failed.stderr.splitlines()
    assert said[0] == f"last lines of {data / 'logs' / 'cpu0_server.log'}:"
    assert "runs on the CPU only" in said[1]
    assert said[-1].startswith("error: cpu0: ")
    state = state_of(data)
    assert state.phase == "failed"
    assert not any(process.is_alive() for process in state.processes())


def test_fleet_that_does_not_speak_is_no_success(data: Path) -> None:
    """Every process is ready, but the trial is refused for want of a key: said, and all is stopped."""
    keys = data / "keys"
    keys.write_text("somebody 0123456789abcdef-secret\n")
    given = ("--engine", "espeak", "--workers", "1", "--port", str(free_port()))
    failed = up(data, *given, BALANCER_API_KEYS=str(keys), FLEET_API_KEY="")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: the fleet runs, but wants a key to speak")
    assert not any(process.is_alive() for process in state_of(data).processes())


def test_taken_port_is_told_and_its_owner_untouched(data: Path) -> None:
    """A port that somebody else has is named."""
    port = free_port()
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()
        failed = up(data, "--engine", "espeak", "--port", str(port))
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1] == f"error: port {port} on 127.0.0.1 is already in use"


def test_reused_pid_is_not_killed(data: Path) -> None:
    """A stale file that names a living process of another beginning ends nobody; nor does an illegible one."""
    with subprocess.Popen(["sleep", "60"]) as stranger:
        stale = ProcessIdentity(pid=stranger.pid, started="another boot 1")
        child = ChildRecord(name="cpu0", process=stale, port=1, log=data / "log")
        RunState(phase="running", supervisor=stale, port=1, flags=[], children=[child]).write(data)
        assert not stop_recorded(state_of(data), 0)
        stale.send(signal.SIGKILL)
        assert stranger.poll() is None
        itself = ProcessIdentity.of(stranger.pid)
        assert itself.is_alive()
        itself.send(signal.SIGTERM)
        assert stranger.wait(10) == -signal.SIGTERM
        assert not itself.is_alive()
    (data / "fleet.json").write_text("{")
    assert read_state(data) is None
    (data / "fleet.json").unlink()
    (data / "fleet.json").mkdir()
    with pytest.raises(InvalidSettings, match="cannot be read"):
        read_state(data)
    (data / "fleet.json").rmdir()


def test_unburied_process_counts_as_gone() -> None:
    """One that has ended and that its parent has not waited for is not waited for by us."""
    with subprocess.Popen(["true"]) as child:
        identity = ProcessIdentity.of(child.pid)
        wait_for(lambda: not identity.is_alive(), 10)


def test_some_earlier_logs_are_kept(tmp_path: Path) -> None:
    """The latest is `.1`; the sixth is gone."""
    log = tmp_path / "gpu0_server.log"
    for start in range(8):
        rotate(log)
        log.write_text(str(start))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        log.name: "7",
        **{f"{log.name}.{age}": str(7 - age) for age in range(1, 6)},
    }


def test_logs_are_named_for_gpus_and_the_balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker and one log per GPU, however many there are; shared GPUs are not named as if they were one's own."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0, GPU-a\\n1, GPU-b\\n2, GPU-c\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    logs = [program.log for program in plan(parse(["--production"]))]
    assert logs == ["gpu0_server.log", "gpu1_server.log", "gpu2_server.log", "loadbalancer.log"]
    assert plan(parse(["--production", "--workers", "4"]))[3].log == "worker-3_server.log"
    assert plan(parse(["--production", "--device", "cpu"]))[0].log == "cpu0_server.log"
