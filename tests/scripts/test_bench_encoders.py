"""The bench of the encoders runs and tells what it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fleet.contract import AudioFormat
from tests.running import ROOT


def test_every_format_is_measured(tmp_path: Path) -> None:
    """A short run writes a figure for each."""
    target = tmp_path / "result.json"
    flags = ["--seconds", "2", "--rounds", "1", "--out", str(target)]
    subprocess.run([sys.executable, str(ROOT / "scripts/bench_encoders.py"), *flags], check=True, capture_output=True)
    result = json.loads(target.read_text())
    assert set(result["encoders"]) == set(AudioFormat)
    assert all(row["times_real_time"] > 0 and row["kbit_per_s"] > 0 for row in result["encoders"].values())
