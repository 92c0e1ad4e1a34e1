"""The benchmark of whole generations, run as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT

FLAGS = ("--device", "cpu", "--tokens", "20", "--batch", "2", "--precisions", "fp32")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the benchmark writes about a tiny checkpoint."""
    directory = tmp_path_factory.mktemp("bench")
    script = ROOT / "scripts/make_checkpoint.py"
    subprocess.run([sys.executable, str(script), str(directory / "tiny"), "--size", "tiny"], check=True, timeout=120)
    target = directory / "generate.json"
    command = [sys.executable, str(ROOT / "scripts/bench_generate.py"), *FLAGS]
    finished = subprocess.run(
        [*command, "--checkpoint", str(directory / "tiny"), "--output", str(target)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    assert "ours fp32" in finished.stdout
    found: dict[str, Any] = json.loads(Path(target).read_text())
    return found


def test_both_sides_are_measured(result: dict[str, Any]) -> None:
    """Upstream before and after ours, each figure the quotient of two that stand beside it."""
    assert len(result["upstream"]) == 2
    (ours,) = result["ours"]
    for measured in (*(half[name] for half in result["upstream"] for name in ("first", "again")), ours["together"]):
        assert measured["rtf"] == pytest.approx(measured["seconds"] / measured["audio_s"], rel=0.01)
        assert measured["audio_s"] > 0.3
    assert ours["streamed"]["audio_s"] == ours["first"]["audio_s"]


def test_second_call_with_a_voice_computes_none(result: dict[str, Any]) -> None:
    """Two voices are computed, one to warm up; the second call finds its own."""
    assert result["ours"][0]["conditioning"] == {"computed": 2, "hits": 1}
