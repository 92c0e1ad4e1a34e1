"""The worker's application: an engine behind its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Security, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send

import fleet
from fleet.access import Access, Guard
from fleet.asgi import BodyLimits, Edge, error_response
from fleet.deadlines import Deadlines
from fleet.errors import FleetError, InternalError, RouteNotFound
from fleet.notify import told
from fleet.sockets import SocketEdge
from fleet.tracing import traced
from workers.api import (
    drain,
    emotions,
    encode,
    events,
    generation,
    listings,
    sillytavern,
    speech,
    stream,
    system,
    voices,
)
from workers.api.bodies import JSON_IN_UTF8
from workers.api.errors import from_http, from_validation
from workers.api.methods import HeadAsGet
from workers.api.state import Worker
from workers.encoding import Encoding
from workers.engine.base import Engine
from workers.guard import EngineGuard
from workers.housekeeping import keep_house
from workers.metrics import WorkerMetrics
from workers.outputs import Outputs
from workers.readiness import ReadinessCheck
from workers.registration import Registration
from workers.settings import WorkerSettings
from workers.sign_of_life import SignOfLife
from workers.synthesis import Synthesis
from workers.uploads import Uploads
from workers.voices.library import Library
from workers.voices.opening import DataDirectory


def make_app(
    settings: WorkerSettings,
    *,
    access: Access,
    engine: Engine,
    library: Library,
    data: DataDirectory,
    registration: Registration,
    close_library: Callable[[], None],
) -> ASGIApp:
    """The application; it watches over the engine while it serves, and closes all it was given when it shuts down."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        guard.start()
        async with (
            library.running(),
            _in_background(_housekeeping()),
            registration.kept(),
            told(life.text, alive=life.is_alive),
        ):
            yield
        await readiness.close()
        guard.stop()  # An engine that is closed on purpose is not lost.
        engine.close()
        close_library()
        data.close()

    async def _housekeeping() -> None:
        interval_s, grace_s = settings.housekeeping_interval_s, settings.artifact_grace_s
        await keep_house(library, outputs, interval_s=interval_s, grace_s=grace_s)

    api = _empty_api(lifespan, with_docs=settings.enable_docs, with_keys=access.keys is not None)
    metrics, readiness, guard = WorkerMetrics(engine), ReadinessCheck(engine), EngineGuard(engine)
    life = SignOfLife(engine, guard)
    metrics.watch(library)
    metrics.watch_disk(data.path)
    outputs = Outputs(data.path / "outputs", max_age_s=settings.max_output_age_s, max_bytes=settings.max_output_size)
    api.state.worker = Worker(
        settings=settings,
        engine=engine,
        library=library,
        outputs=outputs,
        uploads=Uploads(library.artifacts, max_bytes=settings.max_voice_size),
        metrics=metrics,
        synthesis=Synthesis(engine, library, metrics, readiness),
        encoding=Encoding(),
        readiness=readiness,
    )
    # The stream of events before the voices, one of whose routes would take "events" for an id.
    for module in (speech, stream, generation, encode, events, voices, emotions, listings, sillytavern, system, drain):
        router = module.router
        api.include_router(router)
    api.router.default = _nothing_there
    for kind in (FleetError, RequestValidationError, HTTPException, Exception):
        api.add_exception_handler(kind, _answer)
    edge = Edge(
        traced(Deadlines(Guard(HeadAsGet(api), access), limit_s=settings.request_timeout_s), service=settings.name),
        bodies=BodyLimits(settings.max_body_bytes, settings.body_timeout_s),
        uploads=BodyLimits(settings.max_upload_bytes, settings.upload_timeout_s),
    )
    return access.origins.answering(SocketEdge(edge))


@asynccontextmanager
async def _in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


def _empty_api(lifespan: Lifespan[FastAPI], *, with_docs: bool, with_keys: bool) -> FastAPI:
    common: dict[str, Any] = {
        "title": "Chatterbox Fleet",
        "version": fleet.__version__,
        "description": "Speech from text. The same paths on every worker and on the balancer.",
        "lifespan": lifespan,
        "dependencies": [JSON_IN_UTF8],
        "redoc_url": None,
        "redirect_slashes": False,  # a redirect would name the worker's own address to a caller of the balancer
    }
    if with_keys:  # the guard has checked the key; this makes the documentation ask for it
        common["dependencies"] += [Security(HTTPBearer(auto_error=False))]
    if with_docs:
        return FastAPIOffline(**common)  # its page loads nothing from elsewhere
    return FastAPI(docs_url=None, openapi_url=None, **common)


async def _nothing_there(scope: Scope, _receive: Receive, _send: Send) -> None:
    """For HTTP and for WebSockets, which Starlette closes without a word."""
    raise RouteNotFound(f"there is nothing at {scope['path']}")


async def _answer(request: Request | WebSocket, error: Exception) -> Response:
    """Every failure in the one shape; an unexpected one is logged by the edge, which sees it too."""
    if isinstance(request, WebSocket):  # the edge of WebSockets answers in messages
        raise error
    match error:
        case FleetError():
            said = error
        case RequestValidationError():
            said = from_validation(error, request.headers.get("content-type", ""))
        case HTTPException():
            said = from_http(error, request)
        case _:
            said = InternalError("the server met an error of its own; its log says more")
    request.state.outcome = said.code
    return error_response(said, request.state.request_id)
