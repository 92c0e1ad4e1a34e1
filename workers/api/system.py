"""How the worker is doing."""

from __future__ import annotations

import os
import time

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

import fleet
from fleet.contract import Alive, DecodingFigures, ErrorBody, Readiness, WorkerHealth
from fleet.errors import Draining, NotReady
from workers.api.state import WorkerState

router = APIRouter(tags=["system"])


@router.get("/v1/test")
async def test() -> Alive:
    """That this is a speech server; Wyoming bridges recognise one by it."""
    return Alive()


@router.get("/health")
async def health(worker: WorkerState) -> WorkerHealth:
    """What runs here and what it measures of itself."""
    capabilities, status, figures = worker.engine.capabilities, worker.engine.status(), worker.engine.figures()
    return WorkerHealth(
        name=worker.settings.name,
        version=fleet.__version__,
        engine=capabilities.engine,
        model=capabilities.model,
        device=capabilities.device,
        demo_voice=capabilities.demo_voice,
        ready=status.ready and status.fatal is None,
        reason=status.fatal or status.reason,
        voices=len(worker.library.snapshot.voices),
        languages=len(capabilities.languages),
        running_jobs=status.running_jobs,
        queued_jobs=status.queued_jobs,
        rtf=worker.metrics.recent_rtf,
        ttfa_s=worker.metrics.recent_ttfa_s,
        uptime_s=time.time() - worker.metrics.started_at,
        memory_bytes=worker.metrics.memory_bytes(),
        pid=os.getpid(),
        store_id=worker.library.store.store_id,
        concurrency=worker.settings.max_jobs if figures is None else min(worker.settings.max_jobs, figures.slots),
        figures=None if figures is None else DecodingFigures.model_validate(figures),
        parameters=sorted(capabilities.parameters),
        clones_voices=capabilities.clones_voices,
        max_text_chars=worker.settings.max_text_chars,
    )


@router.get("/ready", responses={503: {"model": ErrorBody, "description": "A synthesis would fail now."}})
async def ready(worker: WorkerState) -> Readiness:
    """200 only when a synthesis can succeed now: the engine has just spoken, or is speaking."""
    if worker.readiness.draining:
        raise Draining("this worker finishes what it has and takes nothing new", retry_after=1)
    readiness = await worker.readiness.check()
    if not readiness.ready:
        raise NotReady(readiness.reason or "the engine is not ready", retry_after=1)
    return readiness


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(worker: WorkerState) -> Response:
    """Figures for Prometheus; `docs/metrics.md` explains each."""
    return Response(worker.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/")
async def root() -> dict[str, str]:
    """What this is."""
    return {"name": "chatterbox-fleet", "version": fleet.__version__, "role": "worker", "docs": "/docs"}
