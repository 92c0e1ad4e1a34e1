"""`python -m tests.workers.failing`: a real worker that has figures to tell, and whose engine is lost on SIGUSR1.

`FAILS` in the environment says how: `fatal` tells so, `raises` and `blocks` are what its status does, and `stuck` tells
so while the event loop hangs. An engine that is closed is lost too. With `device` it is the engine that the settings
ask for, chatterbox, whose own thread meets an error of the device at its next step. A text that holds `BROKEN` meets an
error of ours.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

from workers.__main__ import main
from workers.engine.base import Engine, EngineFigures, EngineStatus, Job, Sound
from workers.engine.choice import open_engine
from workers.engine.espeak import EspeakEngine

BROKEN = "Xyzzy"
LOST = "the GPU has fallen off the bus"
DEVICE_LOST = "CUDA error: an illegal memory access was encountered"
BLOCKED_LIMIT_S = 2
FIGURES = EngineFigures(
    steps_per_s=61.5,
    steps=1,
    step_rows=2,
    tokens=3,
    graph_replays=4,
    eager_steps=5,
    euler_steps=6,
    euler_rows=7,
    hops=8,
    hops_late=9,
    slots=10,
    slots_used=11,
    sequences_waiting=12,
    conditionals_computed=13,
    conditionals_hits=14,
    device_bytes=15,
)


class FailingEngine(EspeakEngine):
    lost = False

    def status(self) -> EngineStatus:
        if not self.lost:
            return super().status()
        way = os.environ.get("FAILS", "fatal")
        if way == "raises":
            raise RuntimeError(LOST)
        if way == "blocks":
            time.sleep(3600)
        return replace(super().status(), fatal=LOST)

    def submit(self, job: Job) -> AsyncGenerator[Sound, None]:
        if BROKEN in job.text:
            raise RuntimeError(BROKEN)
        return super().submit(job)

    def figures(self) -> EngineFigures:  # type: ignore[override]  # espeak says None, which is narrower than the protocol
        return FIGURES

    def close(self) -> None:
        self.lost = True
        time.sleep(0.5)
        super().close()


def open_failing(*arguments: Any, **options: Any) -> Engine:
    if os.environ.get("FAILS") == "device":
        return _open_chatterbox(*arguments, **options)
    engine = FailingEngine()

    def lose(*_: object) -> None:
        engine.lost = True
        if os.environ.get("FAILS") == "stuck":
            time.sleep(3600)  # a signal's handler runs in the event loop's thread

    signal.signal(signal.SIGUSR1, lose)
    return engine


def _open_chatterbox(*arguments: Any, **options: Any) -> Engine:
    engine: Any = open_engine(*arguments, **options)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(DEVICE_LOST)

    def lose(*_: object) -> None:
        engine._tokens.steps.run = fail

    signal.signal(signal.SIGUSR1, lose)
    return cast(Engine, engine)


if __name__ == "__main__":
    with patch("workers.__main__.open_engine", open_failing), patch("workers.guard._MOST_MISSES", BLOCKED_LIMIT_S):
        main()
