"""Files of speech on a disk that fills up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import ROOT


@pytest.mark.parametrize("piece", [300, 30_000])
def test_full_disk_leaves_nothing_half_written(tmp_path: Path, piece: int) -> None:
    """However large the pieces are that a file arrives in, the refusal is the same."""
    program = f"""
import asyncio, pathlib, resource
from collections.abc import AsyncGenerator
from fleet.contract import AudioFormat
from fleet.errors import StorageFull
from workers.outputs import Outputs

async def pieces():
    for _ in range(100):
        yield bytes({piece})

outputs = Outputs(pathlib.Path({str(tmp_path)!r}), max_age_s=60, max_bytes=10**9)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
try:
    asyncio.run(outputs.keep(pieces(), AudioFormat.pcm))
except StorageFull as error:
    print(error.status)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("507\n", "")
    assert not list(tmp_path.iterdir())
