"""`scripts/manage` over real processes, on a terminal, and over a `systemctl` that writes down what it is told.

systemd itself does not run where these tests do: that its commands do what they say is not shown here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from fleet.run_state import RunState, read_state, stop_recorded
from fleet.units import unit_of
from tests.running import ROOT, free_port, wait_for
from tests.terminal import OnTerminal

BODY = {"input": "Speech goes on.", "response_format": "pcm"}


@dataclass
class Managed:
    """A data directory and the commands given for it, by `fleet.manage` as `scripts/manage` runs it."""

    data: Path
    port: int
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, over: str = "processes") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "fleet.manage", "--data", str(self.data), "--over", over, *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def state(self) -> RunState:
        state = read_state(self.data)
        assert state is not None
        return state

    def ready(self) -> int:
        return int(httpx2.get(f"{self.url}/health", trust_env=False).json()["ready"])


@pytest.fixture(scope="module")
def manage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Managed]:
    """A fleet that `start` has started."""
    managed = Managed(tmp_path_factory.mktemp("managed"), free_port())
    try:
        started = managed("start", "--engine", "espeak", "--port", str(managed.port))
        assert started.returncode == 0, started.stderr
        assert "spoke " in started.stdout
        yield managed
    finally:
        state = read_state(managed.data)
        if state is not None:
            stop_recorded(state, 20)


def test_status_is_a_table(manage: Managed) -> None:
    """Worker, device, engine, port, pid and state; exit code 0 while somebody speaks."""
    shown = manage("status")
    assert shown.returncode == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert rows[0] == ["worker", "device", "engine", "port", "pid", "state"]
    assert rows[1][:4] == ["cpu0", "cpu", "espeak", str(manage.port + 5)]
    assert [row[0] for row in rows[1:]] == ["cpu0", "cpu1", "balancer", "supervisor"]
    assert "2 of 2 workers ready" in shown.stdout


def test_second_start_changes_nothing(manage: Managed) -> None:
    """It says that the fleet runs; flags, which would change it, are refused."""
    before = manage.state().processes()
    again = manage("start")
    assert (again.returncode, again.stdout) == (0, "it runs already\n")
    assert manage("start", "--workers", "1").returncode == 1
    assert manage.state().processes() == before


def test_logs_are_shown_all_or_one(manage: Managed) -> None:
    """Each under its name; one alone; an unknown name is answered with those there are."""
    everything = manage("logs", "-n", "2")
    assert everything.returncode == 0
    for name in ("cpu0_server.log", "cpu1_server.log", "loadbalancer.log", "supervisor.log"):
        assert name in everything.stdout
    one = manage("logs", "loadbalancer")
    assert one.stdout
    assert "==>" not in one.stdout
    unknown = manage("logs", "gpu7")
    assert unknown.returncode == 1
    assert "there are: cpu0, cpu1, balancer, supervisor" in unknown.stderr


def test_drained_worker_is_shown_as_such_until_it_resumes(manage: Managed) -> None:
    """The other one speaks meanwhile."""
    wait_for(lambda: manage.ready() == 2)
    drained = manage("drain", "cpu0")
    assert drained.returncode == 0, drained.stderr
    assert "cpu0 is idle; scripts/manage resume cpu0 brings it back" in drained.stderr
    assert "draining" in manage("status").stdout
    spoken = httpx2.post(f"{manage.url}/v1/audio/speech", json=BODY, trust_env=False)
    assert (spoken.status_code, spoken.headers["x-worker"]) == (200, "cpu1")
    assert manage("resume", "cpu0").stderr.strip() == "cpu0 is ready"
    assert "no worker 'cpu9'" in manage("drain", "cpu9").stderr


def test_rolling_restart_fails_no_request(manage: Managed) -> None:
    """Every worker is another process afterwards, and whoever asked meanwhile was answered."""
    wait_for(lambda: manage.ready() == 2)
    before = {child.name: child.process for child in manage.state().children}
    over = threading.Event()
    statuses: list[int] = []

    def ask() -> None:
        with httpx2.Client(base_url=manage.url, timeout=30, trust_env=False) as client:
            while not over.wait(0.05):
                statuses.append(client.post("/v1/audio/speech", json=BODY).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        done = manage("rolling-restart")
    finally:
        over.set()
        asking.join(40)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("restarted in") == 2
    assert len(statuses) > 10
    assert set(statuses) == {200}
    wait_for(
        lambda: (
            [child.name for child in manage.state().children if child.process != before[child.name]] == ["cpu0", "cpu1"]
        )
    )


def test_menu_on_a_terminal(manage: Managed, tmp_path: Path) -> None:
    """`scripts/manage` by numbers: what is no number is told, Ctrl-C ends a log and not the menu, 0 leaves."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/manage").write_bytes((ROOT / "scripts/manage").read_bytes())
    (tmp_path / ".venv").symlink_to(sys.prefix)
    command = ["bash", str(tmp_path / "scripts/manage"), "--over", "processes", "--data", str(manage.data)]
    terminal = OnTerminal(command, cwd=tmp_path, environment={"PYTHONPATH": str(ROOT)})

    def answer(keys: bytes, shown: bytes) -> None:
        seen = len(terminal.shown)
        terminal.press(keys)
        wait_for(lambda: shown in terminal.shown[seen:] and terminal.shown.endswith(b"? "), 60)

    wait_for(lambda: terminal.shown.endswith(b"number? "))
    assert b"kept by scripts/up --production" in terminal.shown
    answer(b"1\r", b"2 of 2 workers ready")
    answer(b"x\r", b"'x' is none of them")
    answer(b"8\r", b"which worker? ")
    answer(b"\r", b"nothing done")
    answer(b"8\r", b"which worker? ")
    answer(b"cpu1\r", b"cpu1 is idle")
    answer(b"9\r", b"which worker? ")
    answer(b"cpu1\r", b"cpu1 is ready")
    answer(b"6\r", b"empty: all)? ")
    answer(b"-f\r", b"no log is called '-f'")
    answer(b"7\r", b"empty: all)? ")
    terminal.press(b"balancer\r")
    wait_for(lambda: terminal.shown.rstrip().endswith(b"}"))
    answer(b"\x03", b"number? ")
    terminal.press(b"0\r")
    assert terminal.wait() == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, "rolling-restart"),
        (["start", "--help"], 0, "flags of scripts/up"),
        (["dance"], 2, "dance"),
        (["status", "--colour"], 2, "--colour"),
        (["drain"], 2, "NAME"),
        (["status"], 1, "stopped"),
        (["logs"], 1, "no fleet has been started"),
        (["start", "--data", "elsewhere"], 1, "--data stands before the command"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, words: list[str], code: int, said: str) -> None:
    """By argparse's code 2 for a wrong word, else 1; help is no fault."""
    done = Managed(tmp_path, 0)(*words)
    assert done.returncode == code
    assert said in done.stdout + done.stderr


RECORDER = """#!{python}
import json, os, sys
from pathlib import Path
here = Path(__file__)
with open(here.parent / "calls", "a") as calls:
    calls.write(json.dumps([here.name, *sys.argv[1:]]) + "\\n")
answers = json.loads((here.parent / "answers").read_text())
code, answer = next(((code, answer) for word, code, answer in answers if word in sys.argv), (0, ""))
print(answer, end="", file=sys.stderr if code else sys.stdout)
sys.exit(code)
"""


@pytest.fixture
def units(tmp_path: Path) -> Managed:
    """A machine whose systemd knows the units, one of them running and one that failed."""
    for name in ("systemctl", "journalctl"):
        (tmp_path / name).write_text(RECORDER.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    told = (
        "Id=chatterbox-worker@1.service\nActiveState=failed\nSubState=failed\nMainPID=0\nStatusText=\n\n"
        "Id=chatterbox-worker@0.service\nActiveState=active\nSubState=running\nMainPID=4242\n"
        "StatusText=ready, 91 it/s\n\n"
        "Id=chatterbox-balancer.service\nActiveState=active\nSubState=running\nMainPID=4243\nStatusText=\n"
    )
    answer(tmp_path, ["list-unit-files", 0, "chatterbox.target enabled enabled\n"], ["show", 0, told])
    nobody = f"http://127.0.0.1:{free_port()}"
    return Managed(tmp_path, 0, {"PATH": f"{tmp_path}:{os.environ['PATH']}", "FLEET_URL": nobody})


def answer(directory: Path, *answers: list[object]) -> None:
    (directory / "answers").write_text(json.dumps(answers))


def calls(units: Managed) -> list[list[str]]:
    """What was run since, without the question whether units are installed."""
    path = units.data / "calls"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.unlink()
    assert lines[0] == ["systemctl", "list-unit-files", "--no-legend", "--no-pager", "chatterbox.target"]
    return lines[1:]


def test_units_are_commanded_where_they_are_installed(units: Managed) -> None:
    """Without being told so; the target stands for all of them."""
    for word in ("start", "stop", "restart"):
        done = units(word, over="auto")
        assert done.returncode == 0, done.stderr
        assert ["systemctl", word, "chatterbox.target"] in calls(units)
    assert units("start", "--workers", "3", over="auto").returncode == 1
    assert not [call for call in calls(units) if "start" in call]


def test_units_status_is_the_same_table(units: Managed) -> None:
    """What systemd knows, where the balancer does not answer; a failed unit is shown."""
    shown = units("status", over="auto")
    assert shown.returncode == 0
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["worker", "worker@0", "worker@1", "balancer"]
    assert "4242  active (running): ready, 91 it/s" in shown.stdout
    assert "failed (failed)" in shown.stdout


def test_units_workers_are_told_of_by_the_balancer(units: Managed, manage: Managed) -> None:
    """A unit's process is found among the balancer's workers by its pid."""
    worker, _, balancer, *_ = manage.state().children
    told = (
        f"Id=chatterbox-worker@0.service\nActiveState=active\nSubState=running\nMainPID={worker.process.pid}\n\n"
        f"Id=chatterbox-balancer.service\nActiveState=active\nSubState=running\nMainPID={balancer.process.pid}\n"
    )
    answer(units.data, ["list-unit-files", 0, "chatterbox.target enabled enabled\n"], ["show", 0, told])
    units.environment["FLEET_URL"] = manage.url
    rows = [line.split(maxsplit=5) for line in units("status", over="auto").stdout.splitlines()]
    assert rows[1] == ["cpu0", "cpu", "espeak", str(worker.port), str(worker.process.pid), "ready"]
    assert rows[2][-1] == "2 of 2 workers ready"


def test_units_logs_are_the_journals(units: Managed) -> None:
    """All units or one, followed or not."""
    everything = ["--unit=chatterbox-worker@*.service", "--unit=chatterbox-balancer.service"]
    assert units("logs", over="auto").returncode == 0
    assert calls(units) == [["journalctl", "--no-pager", "--lines=50", *everything]]
    units("logs", "-f", "gpu1", "-n", "7", over="auto")
    assert calls(units) == [["journalctl", "--no-pager", "--lines=7", "--unit=chatterbox-worker@1.service", "--follow"]]


def test_systemds_refusal_is_told_in_its_words(units: Managed) -> None:
    """One line, and code 1."""
    answer(units.data, ["list-unit-files", 0, "chatterbox.target enabled\n"], ["stop", 4, "Access denied\n"])
    refused = units("stop", over="auto")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == "error: systemctl stop chatterbox.target: Access denied\n"


def test_units_are_named_as_people_name_workers() -> None:
    """By the GPU, the worker or the unit."""
    for name in ("0", "gpu0", "worker-0", "worker0", "chatterbox-worker@0", "chatterbox-worker@0.service"):
        assert unit_of(name) == "chatterbox-worker@0.service"
    assert unit_of("loadbalancer") == unit_of("balancer") == "chatterbox-balancer.service"


def test_stop_and_start_again_as_it_was(manage: Managed) -> None:
    """Nothing is left of it; stopping twice is no fault; without flags it starts as it last did."""
    processes = manage.state().processes()
    assert manage("stop").stdout == "stopped\n"
    assert not any(process.is_alive() for process in processes)
    assert manage("stop").stdout == "nothing ran\n"
    assert manage("status").returncode == 1
    assert manage("status").stdout.startswith("stopped")
    started = manage("restart")
    assert started.returncode == 0, started.stderr
    assert manage.ready() == 2
    state = manage.state()
    state.supervisor.send(9)
    wait_for(lambda: not any(process.is_alive() for process in state.processes()), 40)
    gone = manage("status")
    assert gone.returncode == 1
    assert gone.stdout.splitlines()[-1].split() == ["supervisor", "-", "-", "-", "-", "gone"]
