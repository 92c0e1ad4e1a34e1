"""A worker about to be stopped: it finishes what it has, and every balancer learns that it takes nothing new."""

from __future__ import annotations

from fastapi import APIRouter

from fleet.contract import Drain
from fleet.routes import DRAIN_PATH
from workers.api.state import WorkerState

router = APIRouter(tags=["system"])


@router.put(DRAIN_PATH)
async def drain(body: Drain, worker: WorkerState) -> Drain:
    """Refuse the balancers' probes from now on, or no more; what is asked all the same is served."""
    worker.readiness.draining = body.draining
    return body
