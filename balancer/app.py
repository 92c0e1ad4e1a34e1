"""The balancer's application: its own few routes, and the proxy for everything else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psutil
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send

import fleet
from balancer.administration import Administration
from balancer.admission import Admission
from balancer.health import HealthMonitor
from balancer.lag import LoopLag
from balancer.live import LiveStats
from balancer.members import Members
from balancer.metrics import BalancerMetrics
from balancer.models import Models
from balancer.page import BUILT, Page
from balancer.policy import POLICIES
from balancer.pool import WorkerPool
from balancer.proxy import Proxy
from balancer.retries import RetryBudget
from balancer.settings import BalancerSettings
from balancer.sockets import SocketProxy
from balancer.stats import fleet_stats, in_words
from fleet.access import Access, Guard
from fleet.asgi import BodyLimits, Edge
from fleet.contract import BalancerHealth, Readiness, WorkerHealth
from fleet.deadlines import Deadlines
from fleet.errors import MethodNotAllowed, RouteNotFound
from fleet.headers import header
from fleet.notify import reloading, told
from fleet.routes import DRAIN_PATH
from fleet.sockets import SocketEdge
from fleet.tracing import traced

Endpoint = Callable[[], Awaitable[Response]]


def make_app(settings: BalancerSettings, access: Access, stopping: asyncio.Event) -> ASGIApp:
    """The application over the workers that the settings name; streams without an end go on until `stopping`."""
    pool = WorkerPool(
        POLICIES[settings.policy](),
        rules=settings.rules,
        mixed_models=settings.mixed_models,
        probe_interval_s=settings.probe_interval_s,
    )
    members = Members(pool, settings.worker_words, file=settings.workers_file, dns_interval_s=settings.dns_interval_s)
    lag = LoopLag()
    monitor = HealthMonitor(pool, lag, interval_s=settings.probe_interval_s, timeout_s=settings.probe_timeout_s)
    admission = Admission(pool, max_queue=settings.max_queue, max_wait_s=settings.queue_timeout_s)
    metrics = BalancerMetrics(pool, admission, lag)
    budget = RetryBudget(share=settings.retry_share, least=settings.least_retries)
    proxy = Proxy(pool, admission, budget, metrics, settings, stopping=stopping)
    sockets = SocketProxy(pool, admission, budget, metrics, settings)
    administration = Administration(pool, members)
    models = Models(pool)
    own = OwnRoutes(pool, admission, members, metrics, stopping)
    page = Page(settings.page or BUILT)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, _reload, members)
        async with lag.running(), members.running(), monitor.running(), proxy.running():
            await monitor.first_round()
            async with told(lambda: in_words(pool, admission)):
                yield

    lifespan_app = Starlette(lifespan=lifespan)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan_app(scope, receive, send)
        elif scope["type"] == "websocket":
            await sockets(scope, receive, send)
        elif page.answers(scope):
            await page(scope, receive, send)
        elif scope["path"] in own.table:
            await own(scope, receive, send)
        elif scope["path"] == "/workers" or scope["path"].startswith("/workers/"):
            await administration(scope, receive, send)
        elif settings.mixed_models and scope["method"] in ("GET", "HEAD") and models.answers(scope["path"]):
            response = await models(scope["path"], header(scope, "authorization"))
            await response(scope, receive, send)
        elif scope["path"] == DRAIN_PATH:
            raise RouteNotFound("workers are drained by POST /workers/{worker}/drain")
        else:
            await proxy(scope, receive, send)

    edge = Edge(
        traced(Deadlines(Guard(dispatch, access), limit_s=settings.request_timeout_s), service="balancer"),
        bodies=BodyLimits(settings.max_body_bytes, settings.body_timeout_s),
        uploads=BodyLimits(settings.max_upload_bytes, settings.upload_timeout_s),
    )
    return access.origins.answering(SocketEdge(edge))


def _reload(members: Members) -> None:
    with reloading():
        members.reload()


class OwnRoutes:
    """What the balancer answers itself."""

    def __init__(
        self,
        pool: WorkerPool,
        admission: Admission,
        members: Members,
        metrics: BalancerMetrics,
        stopping: asyncio.Event,
    ) -> None:
        self._pool, self._admission, self._members, self._metrics = pool, admission, members, metrics
        self._process = psutil.Process()
        self._live = LiveStats(lambda: fleet_stats(pool, admission, members, metrics), stopping)

        self.table: dict[str, Endpoint] = {
            "/": self.root,
            "/health": self.health,
            "/ready": self.ready,
            "/stats": self.stats,
            "/stats/events": self.stats_events,
            "/metrics": self.metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            message = f"{scope['path']} does not take {scope['method']}"
            raise MethodNotAllowed(message).with_header("allow", "GET, HEAD")
        response = await self.table[scope["path"]]()
        if scope["method"] == "HEAD" and isinstance(response, StreamingResponse):
            response = Response(headers=dict(response.headers), media_type=response.media_type)
            del response.headers["content-length"]
        await response(scope, receive, send)

    async def root(self) -> Response:
        told = {"name": "chatterbox-fleet", "version": fleet.__version__, "role": "balancer", "docs": "/docs"}
        return JSONResponse(told, headers={"vary": "Accept"})

    async def health(self) -> Response:
        """That the balancer lives, and what speaks behind it."""
        serving = self._pool.serving()
        known = [worker.health for worker in serving if worker.health is not None]
        return _json(
            BalancerHealth(
                version=fleet.__version__,
                engine=sorted({health.engine for health in known}),
                model=sorted({health.model for health in known}),
                device=sorted({health.device for health in known}),
                demo_voice=any(health.demo_voice for health in known),
                parameters=_honoured(known),
                clones_voices=_all(known),
                max_text_chars=min((health.max_text_chars for health in known if health.max_text_chars), default=None),
                workers=len(self._pool.workers),
                ready=len(serving),
                uptime_s=time.time() - self._metrics.started_at,
                memory_bytes=self._process.memory_info().rss,
                pid=os.getpid(),
            )
        )

    async def ready(self) -> Response:
        """200 while at least one worker can speak."""
        if not self._pool.serving():
            raise self._pool.not_ready()
        return _json(Readiness(ready=True))

    async def stats(self) -> Response:
        return _json(fleet_stats(self._pool, self._admission, self._members, self._metrics))

    async def stats_events(self) -> Response:
        unbuffered = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(self._live.events(), media_type="text/event-stream", headers=unbuffered)

    async def metrics(self) -> Response:
        return Response(self._metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _honoured(known: list[WorkerHealth]) -> list[str] | None:
    told = [set(health.parameters) for health in known if health.parameters is not None]
    return sorted(set.intersection(*told)) if told else None


def _all(known: list[WorkerHealth]) -> bool | None:
    told = [health.clones_voices for health in known if health.clones_voices is not None]
    return all(told) if told else None


def _json(model: BaseModel) -> Response:
    return Response(model.model_dump_json(), media_type="application/json")
