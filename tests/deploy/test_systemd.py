"""The systemd units, read by systemd's own tools and by the settings they are written for."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from balancer.settings import BalancerSettings
from fleet.keys import CREDENTIAL
from tests.running import ROOT
from tests.tools import require_tool
from workers.settings import WorkerSettings

UNITS = ROOT / "systemd"
WORKER, BALANCER = "chatterbox-worker@.service", "chatterbox-balancer.service"
SOCKET, CREDENTIALS = "chatterbox-balancer.socket", "credentials.conf"


def values(unit: str, name: str) -> list[str]:
    """What a unit file sets `name` to, once for each line."""
    lines = (UNITS / unit).read_text().splitlines()
    return [line.removeprefix(f"{name}=") for line in lines if line.startswith(f"{name}=")]


def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """systemd finds nothing to say about the units where the fleet is installed."""
    interpreter = tmp_path / "opt" / ".venv" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.touch(mode=0o755)
    units = []
    for unit in UNITS.glob("chatterbox*"):
        text = unit.read_text().replace("/opt/chatterbox-fleet", str(tmp_path / "opt"))
        units.append(tmp_path / unit.name)
        units[-1].write_text(text)
    check = subprocess.run(
        [require_tool("systemd-analyze"), "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr
    assert "chatterbox" not in check.stderr, check.stderr


@pytest.mark.parametrize("unit", [WORKER, BALANCER])
def test_the_services_are_confined(unit: str) -> None:
    """systemd rates a service's exposure at 2.0 or less, on its scale from 0 to 10."""
    assert_confined(UNITS / unit)


def assert_confined(unit: Path) -> None:
    check = subprocess.run(
        [require_tool("systemd-analyze"), "security", "--no-pager", "--offline=yes", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize("gpu", range(10))
def test_an_instance_is_named_for_its_gpu(gpu: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The instance for a GPU sees that GPU alone, and its name and port are the ones `scripts/up` would give."""
    pairs = [pair.replace("%i", str(gpu)) for line in values(WORKER, "Environment") for pair in shlex.split(line)]
    environment = dict(pair.split("=", 1) for pair in pairs)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = WorkerSettings.from_environment()
    assert (settings.name, settings.port) == (f"worker-{gpu}", 6100 + gpu)
    assert environment["CUDA_VISIBLE_DEVICES"] == str(gpu)


@pytest.mark.parametrize(("unit", "settings"), [(WORKER, WorkerSettings), (BALANCER, BalancerSettings)])
def test_a_stop_leaves_requests_their_time(unit: str, settings: type[WorkerSettings | BalancerSettings]) -> None:
    """systemd kills a service only after the time in which requests in flight may finish."""
    grace_s = settings.model_fields["shutdown_timeout_s"].default
    assert int(values(unit, "TimeoutStopSec")[0]) > grace_s


@pytest.mark.parametrize("unit", [WORKER, BALANCER])
def test_systemd_waits_for_readiness_and_for_signs_of_life(unit: str) -> None:
    """A service is started when it says so itself, and watched; what its children say does not count."""
    assert values(unit, "Type") == ["notify"]
    assert values(unit, "NotifyAccess") == ["main"]
    assert int(values(unit, "WatchdogSec")[0]) >= 10
    assert int(values(unit, "TimeoutStartSec")[0]) >= 60


def test_socket_is_where_the_balancer_would_listen() -> None:
    """The socket unit's address is that of the settings."""
    host, port = (BalancerSettings.model_fields[name].default for name in ("host", "port"))
    assert values(SOCKET, "ListenStream") == [f"{host}:{port}"]
    assert SOCKET in values(BALANCER, "Requires")


def test_credential_has_the_name_that_is_looked_for(tmp_path: Path) -> None:
    """With its drop-in each service is as confined as without, and systemd understands it."""
    (loaded,) = values(CREDENTIALS, "LoadCredential")
    assert loaded.split(":") == [CREDENTIAL, "/etc/chatterbox-fleet/api-keys"]
    for unit in (WORKER, BALANCER):
        text = (UNITS / unit).read_text() + "\n" + (UNITS / CREDENTIALS).read_text()
        (tmp_path / unit).write_text(text)
        assert_confined(tmp_path / unit)


@pytest.mark.parametrize(("name", "settings"), [("worker", WorkerSettings), ("balancer", BalancerSettings)])
def test_example_environments_are_taken(
    name: str, settings: type[WorkerSettings | BalancerSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every line of the examples, those in comments included, is a setting that the service takes."""
    lines = re.findall(r"^#?([A-Z_]+=.*)$", (UNITS / f"{name}.env").read_text(), re.MULTILINE)
    assert len(lines) >= 4
    for line in lines:
        monkeypatch.setenv(*line.split("=", 1))
    settings.from_environment()
