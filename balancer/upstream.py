"""One attempt at one worker: the request as it is sent, and the reply once its first body chunk is here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import quote

import aiohttp
import structlog
from multidict import CIMultiDict
from starlette.types import Scope
from yarl import URL

from balancer.bodies import Body
from balancer.worker import SERVING, Worker
from fleet.contract import REQUEST_ID_HEADER
from fleet.deadlines import TIMEOUT_HEADER, remaining_s
from fleet.errors import FleetError, Overloaded, RouteNotFound, UpstreamFailed, UpstreamTimeout
from fleet.http_protocol import HEAD_LIMIT
from fleet.routes import is_speech

log = structlog.get_logger()

Headers = list[tuple[bytes, bytes]]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
_REQUEST_ID, _TIMEOUT = REQUEST_ID_HEADER.encode(), TIMEOUT_HEADER.lower().encode()
_NOT_PASSED_ON = _HOP_BY_HOP | {
    *(b"host", b"content-length", b"expect", b"origin", b"x-worker", b"x-priority", _TIMEOUT, _REQUEST_ID)
}
_NOT_PASSED_BACK = _HOP_BY_HOP | {b"date", b"server", _REQUEST_ID}

_WORTH_ANOTHER_WORKER = frozenset({429, 502, 503, 504})
_WORKERS_FAULT = frozenset({500, 502, 503, 504})

_KEEPALIVE_EXPIRY_S = 20
"""Shorter than the workers' keep-alive, so that a connection is never used just as its worker closes it."""

_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
"""There was no connection: nothing of the request was sent."""

LOSSES = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What a worker that is lost, or gives nothing in time, is noticed by."""

_TARGET_SAFE = "!$%&'()*+,/:;=?@[]|{}<>^`\"\\"

_ADDED_BY_THE_CLIENT = ("accept", "accept-encoding", "content-type", "user-agent")


class TryAnother(Exception):
    """This worker did not serve the request, and another one may; `error` is what to say if none does."""

    def __init__(self, error: FleetError) -> None:
        super().__init__(error.message)
        self.error = error


def open_client(*, connect_timeout_s: float, idle_timeout_s: float) -> aiohttp.ClientSession:
    """The client of all workers: adds nothing, follows nothing, unpacks nothing, tries nothing twice."""
    client = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_EXPIRY_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=idle_timeout_s),
        skip_auto_headers=_ADDED_BY_THE_CLIENT,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=HEAD_LIMIT,
        max_field_size=HEAD_LIMIT,
    )
    # By itself it would send a PUT or DELETE again whose connection broke, and what was changed once would be twice.
    client._retry_connection = False  # noqa: SLF001 - there is no public way
    return client


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it goes to a worker. `replayable`: a second worker may be sent it after a first one was."""

    scope: Scope
    target: str
    headers: CIMultiDict[str]
    body: Body
    replayable: bool

    @staticmethod
    def of(scope: Scope, body: Body) -> Call:
        _refuse_odd_path(scope["path"])
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = CIMultiDict(
            (name.decode("latin-1"), _text(value)) for name, value in scope["headers"] if name not in _NOT_PASSED_ON
        )
        headers[REQUEST_ID_HEADER] = scope["state"]["request_id"]
        if body.size:
            headers["content-length"] = str(body.size)
        replayable = scope["method"] in ("GET", "HEAD") or is_speech(scope)
        return Call(scope, quoted(target), headers, body, replayable)

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    def headers_now(self) -> CIMultiDict[str]:
        """With what is left of its time."""
        left_s = remaining_s(self.scope)
        if left_s is not None:
            self.headers[TIMEOUT_HEADER] = f"{max(left_s, 0.001):.3f}"
        return self.headers


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer: `first` is its first body chunk, empty when the body is. To be closed."""

    worker: Worker
    status: int
    headers: Headers
    first: bytes
    response: aiohttp.ClientResponse

    @property
    def is_events(self) -> bool:
        return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in self.headers)

    async def next(self) -> bytes:
        """The chunk that follows; empty at the end. Raises what is among `LOSSES`."""
        chunk = await self.response.content.readany()
        self.worker.progressed()
        return chunk

    def close(self) -> None:
        """The connection is used again if the body is over, else closed."""
        self.response.close()


async def open_reply(client: aiohttp.ClientSession, worker: Worker, call: Call, *, last_chance: bool) -> Reply:
    """The worker's reply; its record is told how it went.

    Raises `TryAnother` when the worker refused the connection, was lost or found stuck before its first chunk (and the
    call may be replayed), or said that it cannot serve now (and this was not the `last_chance`).
    """
    try:
        return await _begin(client, worker, call, last_chance=last_chance)
    except _UNSENT as error:
        if isinstance(error, TimeoutError):
            worker.failed(f"it cannot be connected to: {describe(error)}")
        else:
            worker.failures += 1
            worker.refused(describe(error))
        raise TryAnother(UpstreamFailed(f"{worker.name} does not answer")) from error
    except LOSSES as error:
        raise _lost(worker, call, error) from error


async def _begin(client: aiohttp.ClientSession, worker: Worker, call: Call, *, last_chance: bool) -> Reply:
    """The first chunk, unless the worker is found gone or stuck meanwhile."""
    response, kept = None, False
    try:
        async with asyncio.timeout(None) as patience:

            def give_up() -> None:
                if not patience.expired():
                    patience.reschedule(0)

            with worker.watched(give_up):
                response = await client.request(
                    call.method,
                    URL(worker.url + call.target, encoded=True),
                    headers=call.headers_now(),
                    data=call.body.content() or None,
                    allow_redirects=False,
                )
                refused = response.status in _WORTH_ANOTHER_WORKER and call.replayable and not last_chance
                first = b"" if refused else await response.content.readany()
        worker.progressed()
        _count(worker, response)
        if refused:
            raise TryAnother(UpstreamFailed(f"{worker.name} answered {response.status}"))
        kept = True
        return Reply(worker, response.status, _headers_back(response, worker), first, response)
    finally:
        if response is not None and not kept:
            response.close()


def _count(worker: Worker, response: aiohttp.ClientResponse) -> None:
    """An answer that is an error of the worker's own counts against it; that it is full does not."""
    if response.status in _WORKERS_FAULT:
        worker.failed(f"it answered {response.status}")
    elif response.status == Overloaded.status:
        told = response.headers.get("retry-after", "")
        worker.full_for(float(told) if told.isdecimal() else 1.0)
    elif response.status < 400:
        worker.served()


def quoted(target: bytes) -> str:
    """A request's target as it may be sent on: what is neither reserved nor printable is escaped."""
    return quote(target, safe=_TARGET_SAFE)


def _text(value: bytes) -> str:
    """A header's value, so that UTF-8, which is what is sent, gives the same bytes where it can; without the white
    space around it, which is no part of it (RFC 9110, 5.5).
    """
    try:
        return value.strip().decode()
    except UnicodeDecodeError:
        return value.strip().decode("latin-1")


def _refuse_odd_path(path: str) -> None:
    """A target that names no path, or climbs out of the one it names: workers' own routes are not to be reached so."""
    if not path.startswith("/") or not {".", ".."}.isdisjoint(path.split("/")):
        raise RouteNotFound(f"there is nothing at {path}")


def describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _lost(worker: Worker, call: Call, error: BaseException) -> Exception:
    """What to raise when a worker was lost between the request and its first chunk."""
    serves = worker.state in SERVING  # else it was found gone, and that is why we waited no longer
    worker.failed(describe(error))
    log.warning("worker_lost", worker=worker.name, error=describe(error))
    said: FleetError = UpstreamFailed(f"{worker.name} was lost before it gave sound")
    if isinstance(error, TimeoutError) and serves:
        said = UpstreamTimeout(f"{worker.name} gave no sound in time")
    return TryAnother(said) if call.replayable else said


def _headers_back(response: aiohttp.ClientResponse, worker: Worker) -> Headers:
    headers = [(name.lower(), value) for name, value in response.raw_headers]
    passed = [
        pair for pair in headers if pair[0] not in _NOT_PASSED_BACK and not pair[0].startswith(b"access-control-")
    ]
    return [*passed, (b"x-worker", worker.name.encode())]
