"""The benchmark of the library, run as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.running import ROOT


def test_it_measures_a_real_worker(tmp_path: Path) -> None:
    """Every voice is listed, those that do not fit in memory are read again, and nothing is written elsewhere."""
    target = tmp_path / "library.json"
    flags = ("--voices", "60", "--rotating", "20", "--first-requests", "1", "--cache-bytes", "300")
    finished = subprocess.run(
        [sys.executable, str(ROOT / "scripts/bench_library.py"), *flags, "--out", str(target)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(target.read_text())["results"]
    assert found["listing"]["voices"] == 60
    assert found["rotation"]["voices_read_from_disk"] == 60
    assert all(one["cache_bytes"] <= 300 for one in found["rotation"]["rounds"])
    assert all(figure > 0 for figure in found["speaking"].values())
