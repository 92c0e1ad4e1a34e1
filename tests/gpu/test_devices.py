"""GPUs as the fleet sees them."""

from __future__ import annotations

from pathlib import Path

from fleet.devices import visible_gpus
from fleet.up_plan import parse, plan
from tests.running import RunningFleet


def test_as_many_gpus_as_torch_sees() -> None:
    """Asking the driver's tool gives what CUDA gives."""
    import torch  # noqa: PLC0415 - not on every machine

    assert len(visible_gpus()) == torch.cuda.device_count()


def test_one_worker_per_gpu_each_pinned(tmp_path: Path) -> None:
    """A fleet starts with one worker per GPU, each seeing one, and all become ready."""
    programs = plan(parse([]))[:-1]
    assert [program.environment["CUDA_VISIBLE_DEVICES"] for program in programs] == visible_gpus()
    with RunningFleet(tmp_path) as fleet:
        assert fleet.stats().totals.ready == len(visible_gpus())
