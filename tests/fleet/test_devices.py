"""Which GPUs are seen. The driver's tool is stood in for, since no GPU is at hand; tests/gpu asks the real one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.devices import visible_gpus

LISTING = "0, GPU-aaaa\n1, GPU-bbbb\n2, GPU-cccc\n"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `nvidia-smi` on PATH that lists three GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\nprintf '{LISTING}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tool


@pytest.mark.usefixtures("driver")
@pytest.mark.parametrize(
    ("wanted", "seen"),
    [
        (None, ["0", "1", "2"]),
        ("1", ["1"]),
        ("2,0", ["2", "0"]),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("0,7,1", ["0"]),
        ("", []),
        ("-1", []),
    ],
)
def test_visible_devices_narrow_the_list_as_cuda_does(
    monkeypatch: pytest.MonkeyPatch, wanted: str | None, seen: list[str]
) -> None:
    """An index or a UUID picks a GPU, and an unknown entry hides what follows it."""
    if wanted is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", wanted)
    assert visible_gpus() == seen


def test_no_driver_and_a_broken_driver_mean_no_gpu(driver: Path) -> None:
    """A machine without the tool, or whose driver fails, runs on the CPU."""
    driver.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert visible_gpus() == []
    driver.unlink()
    assert visible_gpus() == []
