"""Files of speech where there is little room for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import httpx2
import pytest

from fleet.contract import AudioFormat
from tests.running import ROOT, RunningWorker, free_port
from workers.outputs import Outputs


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


async def test_the_newest_file_goes_before_all_others(tmp_path: Path) -> None:
    """Also where those of others seem to be of tomorrow, or there is room for none but itself."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        yield bytes(600)

    outputs = Outputs(tmp_path, max_age_s=60, max_bytes=1000)
    for _ in range(2):
        kept = await outputs.keep(pieces(), AudioFormat.pcm)
        assert outputs.find(kept.name).stat().st_size == kept.size == 600
        os.utime(tmp_path / kept.name, (time.time() + 86_400,) * 2)


def test_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    """As one that there is no room for, and what was there stays."""
    with (
        RunningWorker(free_port(0), data_dir=tmp_path, max_output_size=100_000) as worker,
        httpx2.Client(base_url=worker.url, trust_env=False, timeout=20) as client,
    ):
        small = client.post("/generate", json={"text": "Hi."}).json()
        refused = client.post("/generate", json={"text": "This one is far too long. " * 20})
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "storage_full")
        assert client.get(small["audio_url"]).status_code == 200
    assert len(list((tmp_path / "outputs").iterdir())) == 1


def test_file_that_somebody_else_tidies_away_is_no_fault(tmp_path: Path) -> None:
    """Its size was known before."""
    over = threading.Event()

    def tidy() -> None:
        while not over.is_set():
            Outputs(tmp_path / "outputs", max_age_s=60, max_bytes=0).tidy()

    with RunningWorker(free_port(0), data_dir=tmp_path) as worker:
        tidying = threading.Thread(target=tidy)
        tidying.start()
        try:
            for _ in range(10):
                made = httpx2.post(f"{worker.url}/generate", json={"text": "Hi."}, trust_env=False, timeout=20)
                assert (made.status_code, made.json()["duration_s"] > 0) == (200, True)
        finally:
            over.set()
            tidying.join()
