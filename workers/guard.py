"""Ends the process when its engine is lost for good, so that whoever started it starts it anew."""

from __future__ import annotations

import os
import threading
import time
from queue import Empty, SimpleQueue

import structlog

from workers.engine.base import Engine, EngineStatus

log = structlog.get_logger()

ENGINE_LOST_EXIT = 70
"""The process's exit code; EX_SOFTWARE of sysexits.h."""

_LOOK_EVERY_S = 0.1

_LAST_ANSWERS_S = 0.3
"""What the answers in flight get: the engine has ended its jobs with `EngineLost`, which the balancer replays."""

_MISS_S, _MOST_MISSES = 1.0, 10
"""A status that has not come is missed once a second. Counted, not timed: a process that was stopped as a whole
(SIGSTOP, a laptop asleep) misses one, not all those of the time it slept.
"""


class EngineGuard:
    """Looks at the engine's status from threads of its own, which need neither the event loop nor each other's locks.

    One asks, and may be kept waiting by whoever holds the engine's lock; the other waits for the answers, and ends the
    process for a fatal one or when none comes. A status that raises is fatal.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fatal: SimpleQueue[str | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._last: tuple[float, EngineStatus] | None = None
        """The newest answer and when it came, on the monotonic clock."""

    def latest(self) -> EngineStatus | None:
        """What the engine last said of itself; None when it has kept silent for longer than it may."""
        last = self._last
        return last[1] if last is not None and time.monotonic() - last[0] <= _MISS_S else None

    def start(self) -> None:
        for name, run in (("engine-look", self._look), ("engine-guard", self._guard)):
            threading.Thread(target=run, name=name, daemon=True).start()

    def stop(self) -> None:
        """What the engine becomes from now on is no loss."""
        self._stopped.set()
        self._fatal.put(None)

    def _look(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            try:
                status = self._engine.status()
            except Exception as error:  # Whatever it is, an engine that cannot be asked is lost.
                self._fatal.put(f"the engine cannot tell its status: {error!r}")
                log.exception("engine_status_crashed")
                return
            self._last = (time.monotonic(), status)
            self._fatal.put(status.fatal)

    def _guard(self) -> None:
        misses = 0
        while misses < _MOST_MISSES:
            try:
                fatal = self._fatal.get(timeout=_MISS_S)
                misses = 0
            except Empty:
                fatal = None
                misses += 1
            if self._stopped.is_set():
                return
            if fatal is not None:
                _end_process(fatal)
        _end_process(f"the engine has not told its status for {_MOST_MISSES * _MISS_S:g} s")


def _end_process(reason: str) -> None:
    try:
        # Whoever is stuck may hold the lock of standard error, so a thread that can be left behind writes to it.
        threading.Thread(target=log.error, args=("engine_lost",), kwargs={"reason": reason}, daemon=True).start()
        time.sleep(_LAST_ANSWERS_S)
    finally:
        os._exit(ENGINE_LOST_EXIT)
