"""Which errors the engine goes on after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from structlog.testing import capture_logs

from fleet.errors import EngineLost, InternalError
from tests.workers.engine.chatterbox.listening import Clock
from workers.engine.chatterbox import mishaps
from workers.engine.chatterbox.mishaps import EngineBroken, Mishaps

OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.fixture
def dropped() -> list[None]:
    """One for each time that caches were dropped."""
    return []


@pytest.fixture
def counted(dropped: list[None]) -> Iterator[Mishaps]:
    with capture_logs():
        yield Mishaps(lambda: dropped.append(None))


def test_memory_may_run_out_now_and_then(
    counted: Mishaps, dropped: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice within a minute, however often: the jobs are sent elsewhere and caches are dropped each time."""
    clock = Clock(monkeypatch, mishaps)
    for _ in range(10):
        error = counted.take(OUT_OF_MEMORY, "decoding")
        assert isinstance(error, EngineLost)
        assert error.retry_after
        clock.now += 30.1
    assert len(dropped) == 10
    assert counted.fatal is None


def test_memory_that_runs_out_three_times_in_a_minute_is_the_end(
    counted: Mishaps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it was wanted for, and although other work went well in between."""
    clock = Clock(monkeypatch, mishaps)
    for work in ("decoding", "vocoding"):
        counted.take(OUT_OF_MEMORY, work)
        counted.went_well(work)
        clock.now += 29.9
    with pytest.raises(EngineBroken, match="memory ran out 3 times"):
        counted.take(OUT_OF_MEMORY, "decoding")
    assert counted.fatal


@pytest.mark.parametrize(
    "problem",
    [
        torch.AcceleratorError("whatever it says"),
        RuntimeError("CUDA error: device-side assert triggered\nCompile with `TORCH_USE_CUDA_DSA`."),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx(...)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"),
        RuntimeError("CUDA driver error: unknown error"),
    ],
)
def test_error_of_the_device_is_the_end_at_once(counted: Mishaps, problem: Exception) -> None:
    """Every later call would fail too; the reason is its first line."""
    with pytest.raises(EngineBroken):
        counted.take(problem, "decoding")
    assert counted.fatal is not None
    assert str(problem).splitlines()[0] in counted.fatal
    assert "\n" not in counted.fatal


def test_error_of_ours_is_told_without_its_inside(counted: Mishaps) -> None:
    """The job hears that there was one, the log what it was."""
    with capture_logs() as logs:
        error = counted.take(ValueError("secret"), "decoding")
    assert isinstance(error, InternalError)
    assert "secret" not in error.message
    assert logs[0]["event"] == "engine_step_failed"
    assert "secret" in str(logs[0]["exc_info"])


def test_errors_count_while_their_kind_of_work_never_succeeds(counted: Mishaps) -> None:
    """The other kind going well changes nothing, the same kind going well begins the count anew."""
    for _ in range(2):
        counted.take(ValueError("again"), "vocoding")
        counted.went_well("decoding")
    counted.went_well("vocoding")
    for _ in range(2):
        counted.take(ValueError("again"), "vocoding")
        counted.take(ValueError("here too"), "decoding")
        counted.went_well("decoding")
    with pytest.raises(EngineBroken, match="vocoding failed 3 times, one after the other: ValueError"):
        counted.take(ValueError(), "vocoding")
