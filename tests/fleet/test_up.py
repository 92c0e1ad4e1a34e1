"""`fleet.up`: starts everything, says so, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx2
import psutil
import pytest

from fleet.up_plan import parse, plan
from tests.running import ROOT, RunningFleet, free_port, wait_for


def up(*flags: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "fleet.up", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=environment)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_every_process(tmp_path: Path, number: int) -> None:
    """After SIGTERM, Ctrl-C or a closed terminal the exit code is 0 and no descendant is left."""
    with RunningFleet(tmp_path, "--engine", "espeak", "--workers", "3") as fleet:
        children = fleet.descendants()
        assert len(children) == 3 + 3 + 1  # workers, their speaking processes, the balancer
        assert fleet.stop(number) == 0
        assert not [child for child in children if child.is_running()]
        assert fleet.output[-1] == "stopped\n"


def test_announcement_says_what_runs(fleet: RunningFleet) -> None:
    """The address first, then engine, device, workers, and that this is the demo voice."""
    said = "".join(fleet.output)
    assert fleet.output[0] == f"ready: {fleet.url}\n"
    for word in ("espeak-ng-1.52", "cpu", "2:", "demo voice", str(fleet.data / "logs")):
        assert word in said


def test_killed_supervisor_takes_its_children_along(tmp_path: Path) -> None:
    """Even SIGKILL of the supervisor leaves no process behind."""
    with RunningFleet(tmp_path, "--engine", "espeak") as fleet:
        children = fleet.descendants()
        fleet.process.kill()
        wait_for(lambda: not [child for child in children if child.is_running()], 15)


def test_dead_child_is_started_again(tmp_path: Path) -> None:
    """A killed worker and a killed balancer both come back, and that is told."""
    with RunningFleet(tmp_path, "--engine", "espeak") as fleet:
        before = fleet.worker_pids()
        os.kill(before[0], signal.SIGKILL)
        wait_for(lambda: len(set(fleet.worker_pids()) - set(before)) == 1 and fleet.stats().totals.ready == 2, 20)
        balancer = httpx2.get(f"{fleet.url}/health", trust_env=False).json()["pid"]
        os.kill(balancer, signal.SIGKILL)
        wait_for(lambda: _health_pid(fleet.url) not in (None, balancer), 20)
        assert any("worker-0 ended with code -9" in line for line in fleet.output)


def test_child_that_cannot_be_started_again_is_tried_on(tmp_path: Path) -> None:
    """While its log cannot be opened a dead worker stays away, the rest serves; then it comes back."""
    with RunningFleet(tmp_path, "--engine", "espeak") as fleet:
        log = tmp_path / "logs" / "worker-0.log"
        log.unlink()
        log.mkdir()
        os.kill(fleet.worker_pids()[0], signal.SIGKILL)
        wait_for(lambda: any("worker-0 could not be started" in line for line in fleet.output), 20)
        assert httpx2.post(f"{fleet.url}/synthesize", json={"text": "Hi."}, trust_env=False).status_code == 200
        log.rmdir()
        wait_for(lambda: fleet.stats().totals.ready == 2, 30)


def test_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    """The balancer's port or a worker's, whichever is taken, is named."""
    port = free_port()
    for taken in (port, port + 5):
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.1", taken))
            holder.listen()
            ended = up("--port", str(port), "--data", str(tmp_path), "--engine", "espeak")
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == f"error: port {taken} on 127.0.0.1 is already in use\n"


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--engine", "chatterbox"], "--checkpoint"),
        (["--engine", "chatterbox", "--checkpoint", "/nowhere"], "no checkpoint: /nowhere is not a directory"),
        (["--engine", "chatterbox", "--checkpoint", "."], "lacks t3_cfg.safetensors"),
        (["--engine", "espeak", "--device", "cuda"], "runs on the CPU only"),
    ],
)
def test_child_that_cannot_start_ends_it_with_its_own_words(tmp_path: Path, flags: list[str], says: str) -> None:
    """A missing model or an impossible device is one line and a non-zero code, and nothing stays running."""
    port = str(free_port())
    ended = up("--port", port, "--data", str(tmp_path), "--workers", "1", *flags)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("error: worker-0: ")
    assert says in ended.stderr
    assert not [process.pid for process in psutil.process_iter() if _environment(process).get("BALANCER_PORT") == port]


def test_second_fleet_on_the_same_data_is_refused(fleet: RunningFleet) -> None:
    """Two fleets never write the same files."""
    ended = up("--port", str(free_port()), "--data", str(fleet.data))
    assert ended.returncode == 1
    assert "another fleet already runs" in ended.stderr


@pytest.mark.parametrize(
    "flags", [["--workers", "0"], ["--workers", "x"], ["--port", "70000"], ["--engine", "festival"], ["--colour"]]
)
def test_wrong_flag_is_a_usage_error(flags: list[str]) -> None:
    """argparse's own code 2, and the flag is named."""
    ended = up(*flags)
    assert ended.returncode == 2
    assert flags[0] in ended.stderr


def test_unusable_data_directory_is_one_clear_line(tmp_path: Path) -> None:
    """A file where the directory should be is told as such."""
    (tmp_path / "file").write_text("")
    ended = up("--data", str(tmp_path / "file"))
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: --data ")


def test_unwritable_log_directory_is_one_clear_line(tmp_path: Path) -> None:
    """A file where the logs should go is told as such."""
    (tmp_path / "logs").write_text("")
    ended = up("--port", str(free_port()), "--data", str(tmp_path), "--engine", "espeak")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: cannot write logs to ")
    assert len(ended.stderr.splitlines()) == 1


def test_proxy_in_the_environment_is_no_obstacle(tmp_path: Path) -> None:
    """Nothing on this machine is asked through a proxy that the environment names."""
    with RunningFleet(tmp_path, "--engine", "espeak", environment={"http_proxy": "http://127.0.0.1:9"}) as fleet:
        assert httpx2.post(f"{fleet.url}/synthesize", json={"text": "Hi."}, trust_env=False).status_code == 200


def test_environment_chooses_the_engine_unless_a_flag_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """`CHATTERBOX_ENGINE` holds where no flag is given."""
    monkeypatch.setenv("CHATTERBOX_ENGINE", "espeak")
    assert plan(parse([]))[0].environment["CHATTERBOX_ENGINE"] == "espeak"
    assert (
        plan(parse(["--engine", "chatterbox", "--device", "cpu"]))[0].environment["CHATTERBOX_ENGINE"] == "chatterbox"
    )


def test_one_worker_per_gpu_each_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With three GPUs there are three workers, each seeing one; `--workers` more than GPUs share them in turn."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0, GPU-a\\n1, GPU-b\\n2, GPU-c\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def pinned(*flags: str) -> list[str | None]:
        return [program.environment.get("CUDA_VISIBLE_DEVICES") for program in plan(parse(flags))[:-1]]

    assert pinned() == ["0", "1", "2"]
    assert pinned("--workers", "4") == ["0", "1", "2", "0"]
    assert pinned("--device", "cpu") == [None, None]
    assert pinned("--engine", "espeak", "--workers", "1") == [None]


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except psutil.Error:
        return {}


def _health_pid(url: str) -> int | None:
    try:
        return int(httpx2.get(f"{url}/health", trust_env=False).json()["pid"])
    except httpx2.HTTPError:
        return None
