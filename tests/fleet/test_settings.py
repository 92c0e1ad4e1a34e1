"""Settings from the environment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from balancer.settings import BalancerSettings
from fleet.startup_errors import InvalidSettings
from tests.running import ROOT
from workers.settings import WorkerSettings


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        (WorkerSettings, "CHATTERBOX_PORT", "http"),
        (WorkerSettings, "CHATTERBOX_PORT", "70000"),
        (WorkerSettings, "CHATTERBOX_ENGINE", "festival"),
        (WorkerSettings, "CHATTERBOX_LOG_LEVEL", "loud"),
        (WorkerSettings, "CHATTERBOX_COLOUR", "red"),
        (BalancerSettings, "BALANCER_WORKERS", ""),
        (BalancerSettings, "BALANCER_WORKERS", "worker-0:6100"),
        (BalancerSettings, "BALANCER_WORKERS", "http://a:1,http://a:1"),
        (BalancerSettings, "BALANCER_POLICY", "random"),
        (BalancerSettings, "BALANCER_PROBE_INTERVAL_S", "0"),
        (BalancerSettings, "BALANCER_VERBOSE", "1"),
    ],
)
def test_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch,
    settings: type[WorkerSettings | BalancerSettings],
    name: str,
    value: str,
) -> None:
    """An unknown or malformed variable stops the start with its own name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings, match=name):
        settings.from_environment()


def test_unprefixed_names_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """`API_PORT` and `LOG_LEVEL` work as the prefixed names do, which go before them."""
    monkeypatch.setenv("API_PORT", "6123")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    assert WorkerSettings.from_environment().port == 6123
    assert WorkerSettings.from_environment().log_level == "debug"
    monkeypatch.setenv("CHATTERBOX_PORT", "6124")
    assert WorkerSettings.from_environment().port == 6124


def test_wrong_unprefixed_setting_is_named_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable in the message is the one the person set."""
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(InvalidSettings, match=r"^LOG_LEVEL"):
        WorkerSettings.from_environment()


@pytest.mark.parametrize(
    ("module", "variable", "says"),
    [
        ("workers", "CHATTERBOX_PORT=x", "CHATTERBOX_PORT"),
        ("balancer", "BALANCER_WORKERS=x", "BALANCER_WORKERS"),
        ("workers", "CHATTERBOX_ENGINE=chatterbox", "--checkpoint"),
    ],
)
def test_process_that_cannot_start_says_why_in_one_line(module: str, variable: str, says: str) -> None:
    """One line on standard error and exit code 1, no traceback."""
    name, value = variable.split("=")
    ended = subprocess.run(
        [sys.executable, "-P", "-m", module],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", name: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    last = ended.stderr.strip().splitlines()[-1]
    assert ended.returncode == 1
    assert last.startswith("error: ")
    assert says in last
    assert "Traceback" not in ended.stderr
