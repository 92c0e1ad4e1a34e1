"""A short soak, run as its users run it: the balancer bears killed workers, and the file says how."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from bench_streams import OK, Heard
from soak_balancer import MOST_POINTS, Point, faults, thinned
from soak_load import Outcomes

GOOD = {
    "outcomes": {"failed": {}},
    "in_flight_at_end": 0,
    "waiting_at_end": 0,
    "rss_mib": {"first": 60.0, "third": 65.0, "end": 80.0},
}


def test_nothing_fails_while_workers_are_killed(tmp_path: Path) -> None:
    """Every request is counted, none failed before its sound began, nothing is left over, and the exit code is 0."""
    target = tmp_path / "soak.json"
    command = [sys.executable, str(ROOT / "scripts/soak_balancer.py"), "--minutes", "0.12", "--kill-every", "2"]
    finished = subprocess.run([*command, "--out", str(target)], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads(target.read_text())
    assert found["faults"] == []
    assert found["kills"] >= 2
    outcomes = found["outcomes"]
    assert outcomes["failed"] == {}
    assert outcomes["complete"] > 50
    counted = outcomes["complete"] + outcomes["left"] + sum(sum(outcomes[name].values()) for name in ("refused", "cut"))
    assert counted >= found["balancer"]["requests"] > 100
    assert (found["in_flight_at_end"], found["waiting_at_end"]) == (0, 0)
    assert len(found["series"]) >= 10
    assert found["series"][-1]["rss_mib"] == found["rss_mib"]["end"] > 20
    assert {"date", "command", "commit", "hardware", "versions"} <= found.keys()


@pytest.mark.parametrize(
    ("heard", "leaves", "counted"),
    [
        (Heard(outcome=OK, status=200), True, {"complete": 1}),
        (Heard(outcome="unanswered"), True, {"left": 1}),
        (Heard(outcome="unanswered"), False, {"failed": {"unanswered": 1}}),
        (Heard(outcome="unanswered: closed"), True, {"failed": {"unanswered: closed": 1}}),
        (Heard(outcome="429 overloaded", status=429, retry_after="3"), False, {"refused": {"429": 1}}),
        (Heard(outcome="429 overloaded", status=429), False, {"failed": {"429 overloaded": 1}}),
        (Heard(outcome="503 not_ready", status=503, retry_after="3"), False, {"failed": {"503 not_ready": 1}}),
        (Heard(outcome="unfinished: closed", status=200), False, {"failed": {"unfinished: closed": 1}}),
        (
            Heard(outcome="unfinished: closed", status=200, first_byte_s=0.1),
            True,
            {"cut": {"unfinished: closed": 1}},
        ),
    ],
)
def test_each_request_is_counted_for_what_it_was(heard: Heard, leaves: bool, counted: dict[str, object]) -> None:
    """A refusal that says when to come again is no failure; whatever ends before the first byte of sound is one."""
    outcomes = Outcomes()
    outcomes.count(heard, leaves=leaves)
    assert {name: value for name, value in outcomes.told().items() if value} == counted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"outcomes": {"failed": {"503 not_ready": 2}}}, ["failed before the body began: 503 not_ready x 2"]),
        ({"in_flight_at_end": 1}, ["in_flight_at_end: 1"]),
        ({"waiting_at_end": 3}, ["waiting_at_end: 3"]),
        ({"rss_mib": {"third": 65.0, "end": 85.5}}, ["memory grew by 20.5 MiB after the first third"]),
    ],
)
def test_what_must_not_be_is_told(change: dict[str, object], said: list[str]) -> None:
    """A failed request, one that is still there at the end, memory that grew."""
    assert faults({**GOOD, **change}) == said


def test_long_series_are_thinned() -> None:
    """The last point stays, and no more than so many."""
    points = [Point(float(n), 60.0, 20, 0, 0, 4, 1.0) for n in range(721)]
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS
    assert kept[-1] == points[-1]
    assert thinned(points[:5]) == points[:5]


def test_too_few_workers_are_refused() -> None:
    """One may be drained while another is killed: with two, none would be left."""
    command = [sys.executable, str(ROOT / "scripts/soak_balancer.py"), "--workers", "2"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 2
    assert "at least 3" in finished.stderr
