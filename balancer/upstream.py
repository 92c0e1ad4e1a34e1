"""One attempt at one worker: the request as it is sent, and the reply once its first body chunk is here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import structlog
from starlette.types import Scope

from balancer.bodies import Body
from balancer.pool import Worker
from fleet.contract import REQUEST_ID_HEADER
from fleet.errors import FleetError, RouteNotFound, UpstreamFailed, UpstreamTimeout
from fleet.routes import is_speech

log = structlog.get_logger()

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
_REQUEST_ID = REQUEST_ID_HEADER.encode()
_NOT_PASSED_ON = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"origin", b"x-worker", _REQUEST_ID}
_NOT_PASSED_BACK = _HOP_BY_HOP | {b"date", b"server", _REQUEST_ID}

_WORTH_ANOTHER_WORKER = frozenset({429, 502, 503, 504})


class TryAnother(Exception):
    """This worker did not serve the request, and another one may; `error` is what to say if none does."""

    def __init__(self, error: FleetError) -> None:
        super().__init__(error.message)
        self.error = error


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it goes to a worker. `replayable`: a second worker may be sent it after a first one was."""

    method: str
    target: bytes
    headers: Headers
    body: Body
    replayable: bool

    @staticmethod
    def of(scope: Scope, body: Body) -> Call:
        _refuse_odd_path(scope["path"])
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [(name, value) for name, value in scope["headers"] if name not in _NOT_PASSED_ON]
        headers.append((_REQUEST_ID, scope["state"]["request_id"].encode()))
        if body.size:
            headers.append((b"content-length", str(body.size).encode()))
        replayable = scope["method"] in ("GET", "HEAD") or is_speech(scope)
        return Call(scope["method"], target, headers, body, replayable)


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer: `first` is its first body chunk, empty when the body is; `rest` are the others."""

    worker: Worker
    status: int
    headers: Headers
    first: bytes
    rest: AsyncIterator[bytes]

    @property
    def is_events(self) -> bool:
        return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in self.headers)


@asynccontextmanager
async def open_reply(
    client: httpx2.AsyncClient, worker: Worker, call: Call, *, last_chance: bool
) -> AsyncIterator[Reply]:
    """The worker's reply, held open inside the context.

    Raises `TryAnother` when the worker refused the connection, was lost before its first chunk (and the call may be
    replayed), or said that it cannot serve now (and this was not the `last_chance`).
    """
    url = httpx2.URL(worker.url).copy_with(raw_path=call.target)
    request = client.build_request(call.method, url, headers=call.headers, content=call.body.content())
    with worker.serving():
        try:
            response = await client.send(request, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            worker.failures += 1
            worker.refused_connection(describe(error))
            raise TryAnother(UpstreamFailed(f"{worker.name} does not answer")) from error
        except httpx2.HTTPError as error:
            raise _lost(worker, call, error) from error
        try:
            if response.status_code in _WORTH_ANOTHER_WORKER and call.replayable and not last_chance:
                raise TryAnother(UpstreamFailed(f"{worker.name} answered {response.status_code}"))
            rest = response.aiter_raw()
            try:
                first = await anext(rest, b"")
            except httpx2.HTTPError as error:
                raise _lost(worker, call, error) from error
            yield Reply(worker, response.status_code, _headers_back(response, worker), first, rest)
        finally:
            await response.aclose()


def _refuse_odd_path(path: str) -> None:
    """A target that names no path, or climbs out of the one it names: workers' own routes are not to be reached so."""
    if not path.startswith("/") or not {".", ".."}.isdisjoint(path.split("/")):
        raise RouteNotFound(f"there is nothing at {path}")


def describe(error: httpx2.HTTPError) -> str:
    return str(error) or type(error).__name__


def _lost(worker: Worker, call: Call, error: httpx2.HTTPError) -> Exception:
    """What to raise when a worker was lost between the request and its first chunk."""
    worker.failures += 1
    log.warning("worker_lost", worker=worker.name, error=describe(error))
    said: FleetError = UpstreamFailed(f"{worker.name} was lost before it gave sound")
    if isinstance(error, httpx2.TimeoutException):
        said = UpstreamTimeout(f"{worker.name} gave no sound in time")
    return TryAnother(said) if call.replayable else said


def _headers_back(response: httpx2.Response, worker: Worker) -> Headers:
    headers = [(name.lower(), value) for name, value in response.headers.raw]
    passed = [
        pair for pair in headers if pair[0] not in _NOT_PASSED_BACK and not pair[0].startswith(b"access-control-")
    ]
    return [*passed, (b"x-worker", worker.name.encode())]
