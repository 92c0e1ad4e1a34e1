"""One attempt at one worker: the request as it is sent, and the reply once its first body chunk is here."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import aiohttp
import structlog
from pydantic import ValidationError
from yarl import URL

from balancer.calls import HOP_BY_HOP, REQUEST_ID, Call, Headers
from balancer.wire import OUR_SHORTAGE, Connection, Refused, Wire
from balancer.worker import SERVING, Worker
from fleet.contract import ErrorBody
from fleet.errors import (
    DeadlineExceeded,
    FleetError,
    Overloaded,
    StoreUnavailable,
    UpstreamFailed,
    UpstreamTimeout,
    VoicePending,
)
from fleet.http_protocol import HEAD_LIMIT
from fleet.routes import is_speech

log = structlog.get_logger()

_NOT_PASSED_BACK = HOP_BY_HOP | {b"date", b"server", REQUEST_ID}

_WORTH_ANOTHER_WORKER = frozenset({429, 502, 503, 504})
_WORKERS_FAULT = frozenset({500, 502, 503, 504})
_NOT_ITS_FAULT = frozenset({VoicePending.code, StoreUnavailable.code, DeadlineExceeded.code})
"""Any other worker would answer the same."""

_KEEPALIVE_EXPIRY_S = 20
"""Shorter than the workers' keep-alive, so that a connection is never used just as its worker closes it."""

_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, Refused)
"""There was no connection: nothing of the request was sent."""

LOSSES = (aiohttp.ClientError, ConnectionError, TimeoutError)
"""What a worker that is lost, or gives nothing in time, is noticed by."""

_ADDED_BY_THE_CLIENT = ("accept", "accept-encoding", "content-type", "user-agent")


class TryAnother(Exception):
    """This worker did not serve the request, and another one may; `error` is what to say if none does."""

    def __init__(self, error: FleetError) -> None:
        super().__init__(error.message)
        self.error = error


def open_client(*, connect_timeout_s: float, idle_timeout_s: float) -> aiohttp.ClientSession:
    """A client of all workers: adds nothing, follows nothing, unpacks nothing, tries nothing twice."""
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


class Incoming(Protocol):
    """The body of an answer on its way."""

    async def readany(self) -> bytes:
        """What there is, empty at the end. Raises what is among `LOSSES`."""
        ...

    def close(self) -> None:
        """The connection is used again if the body is over, else closed."""
        ...


@dataclass(frozen=True, slots=True)
class Reply:
    """A worker's answer: `first` is its first body chunk, empty when the body is. To be closed."""

    worker: Worker
    status: int
    headers: Headers
    first: bytes
    body: Incoming

    @property
    def is_events(self) -> bool:
        return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in self.headers)

    async def next(self) -> bytes:
        """The chunk that follows; empty at the end. Raises what is among `LOSSES`."""
        chunk = await self.body.readany()
        self.worker.progressed()
        return chunk

    def close(self) -> None:
        self.body.close()


class Upstream:
    """The connections to the workers: small speech by the wire, everything else by aiohttp."""

    def __init__(self, *, connect_timeout_s: float, idle_timeout_s: float) -> None:
        self._wire = Wire(connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s)
        self._client = open_client(connect_timeout_s=connect_timeout_s, idle_timeout_s=idle_timeout_s)

    async def close(self) -> None:
        self._wire.close()
        await self._client.close()

    async def reply(self, worker: Worker, call: Call, *, last_chance: bool) -> Reply:
        """The worker's reply; its record is told how it went.

        Raises `TryAnother` when the worker refused the connection, was lost or found stuck before its first chunk (and
        the call may be replayed), or said that it cannot serve now (and this was not the `last_chance`).
        """
        try:
            return await self._begin(worker, call, last_chance=last_chance)
        except _UNSENT as error:
            if isinstance(error, TimeoutError):
                worker.failed(f"it cannot be connected to: {describe(error)}")
            elif getattr(error, "errno", None) not in OUR_SHORTAGE:
                worker.failures += 1
                worker.refused(describe(error))
            raise TryAnother(UpstreamFailed(f"{worker.name} does not answer")) from error
        except LOSSES as error:
            raise _lost(worker, call, error) from error

    async def _begin(self, worker: Worker, call: Call, *, last_chance: bool) -> Reply:
        """The first chunk, unless the worker is found gone or stuck meanwhile."""
        incoming: Incoming | None = None
        kept = False
        try:
            async with asyncio.timeout(None) as patience:

                def give_up() -> None:
                    if not patience.expired():
                        patience.reschedule(0)

                with worker.watched(give_up):
                    status, headers, incoming = await self._sent(worker, call)
                    first = await incoming.readany()
            worker.progressed()
            alike = status in _WORKERS_FAULT and _code(first) in _NOT_ITS_FAULT
            refused = status in _WORTH_ANOTHER_WORKER and call.replayable and not last_chance and not alike
            if not alike:
                _count(worker, call, status, headers)
            if refused:
                raise TryAnother(UpstreamFailed(f"{worker.name} answered {status}"))
            kept = True
            return Reply(worker, status, _headers_back(headers, worker), first, incoming)
        finally:
            if incoming is not None and not kept:
                incoming.close()

    async def _sent(self, worker: Worker, call: Call) -> tuple[int, Headers, Incoming]:
        """The head of the answer, and its body on the way."""
        scheme, _, host = worker.url.partition("://")
        data = call.on_wire(host) if scheme == "http" else None
        if data is not None:
            connection = await self._wire.ask(worker.url, data)
            return connection.status, connection.headers, _OnWire(self._wire, worker.url, connection)
        response = await self._client.request(
            call.method,
            URL(worker.url + call.target, encoded=True),
            headers=call.headers_as_text(),
            data=call.body.content() or None,
            allow_redirects=False,
        )
        return response.status, list(response.raw_headers), _ByClient(response)


@dataclass(frozen=True, slots=True)
class _OnWire:
    wire: Wire
    url: str
    connection: Connection

    async def readany(self) -> bytes:
        return await self.connection.readany()

    def close(self) -> None:
        self.wire.release(self.url, self.connection)


@dataclass(frozen=True, slots=True)
class _ByClient:
    response: aiohttp.ClientResponse

    async def readany(self) -> bytes:
        return await self.response.content.readany()

    def close(self) -> None:
        self.response.close()


def _code(body: bytes) -> str | None:
    try:
        return ErrorBody.model_validate_json(body).error.code
    except ValidationError:
        return None


def _count(worker: Worker, call: Call, status: int, headers: Headers) -> None:
    """An answer that is an error of the worker's own counts against it; that it is full does not."""
    if status in _WORKERS_FAULT:
        worker.failed(f"it answered {status}")
    elif status == Overloaded.status and is_speech(call.scope):
        told = next((value for name, value in headers if name.lower() == b"retry-after"), b"")
        worker.full_for(float(told) if told.isdigit() else 1.0)
    elif status < 400 and is_speech(call.scope):
        worker.served()


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


def _headers_back(headers: Headers, worker: Worker) -> Headers:
    named = [(name.lower(), value) for name, value in headers]
    passed = [pair for pair in named if pair[0] not in _NOT_PASSED_BACK and not pair[0].startswith(b"access-control-")]
    return [*passed, (b"x-worker", worker.name.encode())]
