"""Every command of the README, in a fresh clone, as a new user runs them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import httpx2
import psutil
import pytest

from fleet.contract import AudioFormat
from tests.running import ROOT, free_port
from tests.sound import decode, loudness

README = (ROOT / "README.md").read_text()
BASH = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
STARTS = [block for block in BASH if "scripts/up" in block and "--production" not in block]
(PRODUCTION,) = [block for block in BASH if "--production" in block]
CALLS = [block for block in BASH if "scripts/" not in block]


class Clone:
    """A fresh copy of what is tracked, with commands run in it on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        changed = subprocess.run(
            ["git", "ls-files", "--modified", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in changed.stdout.split():  # While one works on it, what is not committed counts too.
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
            (folder / name).chmod((ROOT / name).stat().st_mode)

    def here(self, command: str) -> str:
        """The command on this clone's port instead of the default one, which may be in use."""
        return command.replace("6095", str(self.port)).replace("scripts/up", f"scripts/up --port {self.port}")

    def start(self, command: str) -> subprocess.Popen[str]:
        """A block that starts a fleet, once it has said that the fleet is ready."""
        process = subprocess.Popen(
            ["bash", "-c", self.here(command)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == f"ready: http://127.0.0.1:{self.port}\n"
        return process

    def run(self, command: list[str]) -> None:
        environment = {**os.environ, "FLEET_URL": f"http://127.0.0.1:{self.port}"}
        subprocess.run(command, cwd=self.folder, env=environment, check=True, timeout=400, stdout=subprocess.DEVNULL)

    def elsewhere(self) -> Clone:
        """The same clone, with another port."""
        other = copy(self)
        other.port = free_port()
        return other


def stop(process: subprocess.Popen[str]) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(30)
    assert process.stdout is not None
    process.stdout.close()
    psutil.wait_procs(children, timeout=5)
    assert not [child for child in children if child.is_running()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("readme") / "clone")


@pytest.fixture(scope="module")
def started(clone: Clone) -> Iterator[Clone]:
    """The clone after its first `scripts/up`, which installs."""
    process = clone.start(STARTS[0])
    yield clone
    stop(process)


def test_readme_shows_what_a_new_user_needs() -> None:
    """Three starts, the test command, curl, the OpenAI client, the command line and the model's measurement."""
    assert len(STARTS) == 3
    assert [block for block in BASH if "scripts/test" in block] == ["scripts/test\n"]
    assert any("curl" in block for block in CALLS)
    assert any("fleet say" in block for block in CALLS)
    assert len([block for block in BASH if "make_checkpoint" in block]) == 1
    assert len(PYTHON) == 1


@pytest.mark.parametrize("block", CALLS)
def test_shell_commands_run(started: Clone, block: str) -> None:
    """Each block as it stands, stopping at its first failure."""
    started.run(["bash", "-euo", "pipefail", "-c", started.here(block)])


def test_python_example_runs(started: Clone) -> None:
    """With the installed `openai` package; the file it writes is speech."""
    started.run([sys.executable, "-c", started.here(PYTHON[0])])
    assert loudness(decode((started.folder / "streamed.wav").read_bytes(), AudioFormat.wav)[0]) > 0.02


def test_the_model_is_measured_and_speaks(clone: Clone) -> None:
    """The engine's commands write a checkpoint and a result, and a fleet speaks with it.

    The tests' own environment stands for `.venv-dev` and for `.venv` with the model's packages.
    """
    (block,) = [block for block in BASH if "make_checkpoint" in block]
    clone.run(["bash", "-euo", "pipefail", "-c", block.replace(".venv-dev/bin/python", sys.executable)])
    assert (clone.folder / "checkpoint/t3_cfg.safetensors").is_file()
    assert list((clone.folder / "benchmarks/results").glob("engine-*-layers2-*.json"))
    (start,) = [block for block in STARTS if "--checkpoint" in block]
    bounded = f"export CHATTERBOX_MAX_TOKENS=40 OMP_NUM_THREADS=1; {start}"  # random weights never stop
    there = clone.elsewhere()
    fleet_up = f"exec {sys.executable} -P -m fleet.up --port {there.port} --data data-3"
    process = there.start(bounded.replace("scripts/up", fleet_up))
    try:
        request = {"input": "Hello from the fleet.", "response_format": "wav"}
        answer = httpx2.post(f"http://127.0.0.1:{there.port}/v1/audio/speech", json=request, timeout=60)
        assert (answer.status_code, answer.headers["x-engine"]) == (200, "chatterbox")
        samples, _ = decode(answer.content, AudioFormat.wav)
        assert len(samples) > 960
    finally:
        stop(process)


def test_installation_is_small(started: Clone) -> None:
    """Serving on the espeak engine installs neither torch nor anything of that size."""
    packages = next((started.folder / ".venv/lib").glob("python*/site-packages"))
    assert not list(packages.glob("torch*"))
    size = sum(path.stat().st_size for path in (started.folder / ".venv").rglob("*") if path.is_file())
    assert size < 450e6


def test_what_was_run_leaves_no_trace_in_git(started: Clone) -> None:
    """Environment, logs and data are ignored; only the files that the README's commands name are new."""
    command = ["git", "status", "--porcelain", "data", ".venv"]
    assert subprocess.run(command, cwd=started.folder, capture_output=True, check=True).stdout == b""


def test_a_fleet_in_the_background_is_looked_after(started: Clone) -> None:
    """Started, listed and stopped by the block as it stands, on a data directory of its own."""
    there = started.elsewhere()
    block = there.here(PRODUCTION).replace("scripts/up", "scripts/up --data data-4")
    block = block.replace("scripts/manage", "scripts/manage --over processes --data data-4")
    there.run(["bash", "-euo", "pipefail", "-c", block])
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{there.port}/health", trust_env=False)


def test_start_on_chosen_gpus_runs(started: Clone) -> None:
    """The GPU line starts a fleet too; without a GPU it has two workers on the CPU."""
    stop(started.elsewhere().start(STARTS[1].replace("scripts/up", "scripts/up --data data-2")))
