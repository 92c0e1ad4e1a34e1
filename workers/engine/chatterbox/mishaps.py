"""What goes wrong on the engine's thread: which errors it can go on after, and when it must give up."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

import structlog
import torch

from fleet.errors import EngineLost, FleetError, InternalError

log = structlog.get_logger()

_OFTEN = 3
_WINDOW_S = 60.0
_STICKY = (
    *("CUDA error", "CUDA driver error", "Triton Error [CUDA]"),
    *("cuBLAS error", "CUBLAS_STATUS", "cuDNN error", "CUDNN_STATUS"),
)
"""After an error of the device itself every later call in the process fails too."""


class EngineBroken(Exception):
    """The engine cannot go on in this process."""


class Mishaps:
    """Counts failures and decides. `fatal` says why the engine was given up; any thread may read it.

    Memory used up: `drop_caches` is called and the engine goes on, unless it was the third time within a minute.
    Any other error of ours: it goes on, unless the same kind of work has not gone well between three of them. An error
    of the CUDA device ends it at once.
    """

    def __init__(self, drop_caches: Callable[[], None]) -> None:
        self._drop_caches = drop_caches
        self._short_of_memory: deque[float] = deque(maxlen=_OFTEN)
        self._in_a_row: Counter[str] = Counter()
        self.fatal: str | None = None

    def take(self, problem: Exception, work: str) -> FleetError:
        """What to answer the jobs it happened to. Raises `EngineBroken` when it was one too many."""
        if isinstance(problem, torch.OutOfMemoryError):
            return self._out_of_memory(problem)
        log.error("engine_step_failed", exc_info=problem)
        said = str(problem).strip()
        reason = said.splitlines()[0] if said else type(problem).__name__
        if isinstance(problem, torch.AcceleratorError) or any(mark in str(problem) for mark in _STICKY):
            self._give_up(f"the CUDA device failed: {reason}")
        self._in_a_row[work] += 1
        if self._in_a_row[work] >= _OFTEN:
            self._give_up(f"{work} failed {_OFTEN} times, one after the other: {reason}")
        return InternalError("the engine met an error of its own; its log says more")

    def went_well(self, work: str) -> None:
        del self._in_a_row[work]

    def broke(self, problem: BaseException) -> None:
        """The thread has met what nobody foresaw and ends."""
        log.error("engine_thread_ended", exc_info=problem)
        self.fatal = f"the engine's thread has ended: {type(problem).__name__}: {problem}"

    def _out_of_memory(self, problem: Exception) -> FleetError:
        log.error("out_of_memory", error=str(problem))
        now = time.monotonic()
        self._short_of_memory.append(now)
        if len(self._short_of_memory) == _OFTEN and now - self._short_of_memory[0] < _WINDOW_S:
            self._give_up(f"memory ran out {_OFTEN} times within {_WINDOW_S:g} s")
        self._drop_caches()
        return EngineLost("the device's memory is used up", retry_after=1)

    def _give_up(self, reason: str) -> None:
        self.fatal = reason
        raise EngineBroken(reason)
