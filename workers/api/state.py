"""What the routes of one worker share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from workers.encoding import Encoding
from workers.engine.base import Engine
from workers.metrics import WorkerMetrics
from workers.outputs import Outputs
from workers.readiness import ReadinessCheck
from workers.settings import WorkerSettings
from workers.synthesis import Synthesis
from workers.uploads import Uploads
from workers.voices.library import Library


@dataclass(frozen=True, slots=True)
class Worker:
    settings: WorkerSettings
    engine: Engine
    library: Library
    outputs: Outputs
    uploads: Uploads
    metrics: WorkerMetrics
    synthesis: Synthesis
    encoding: Encoding
    readiness: ReadinessCheck


async def _of_request(request: Request) -> Worker:  # async, or FastAPI would run it in a thread
    return cast(Worker, request.app.state.worker)


WorkerState = Annotated[Worker, Depends(_of_request)]
