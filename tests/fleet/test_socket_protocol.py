"""Handshakes of WebSockets that are none, over bare sockets, at a worker and at the balancer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from fleet.errors import NotReady
from fleet.http_protocol import BoundedHttpProtocol
from fleet.server import bind
from fleet.socket_protocol import StrictSocketProtocol
from fleet.sockets import SocketEdge
from tests.running import RunningFleet, free_port
from tests.wire import ask

KEY, VERSION = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", b"sec-websocket-version: 13"
STREAM = b"/v1/audio/stream"


def handshake(*headers: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
    lines = (method + b" " + STREAM + b" HTTP/1.1", b"host: x", b"connection: Upgrade", b"upgrade: websocket", *headers)
    return b"\r\n".join([*lines, b"", b""]) + body


BAD = {
    "no key": (handshake(VERSION), 400, "bad_request"),
    "a short key": (handshake(b"sec-websocket-key: short", VERSION), 400, "bad_request"),
    "two keys": (handshake(KEY, KEY, VERSION), 400, "bad_request"),
    "version 12": (handshake(KEY, b"sec-websocket-version: 12"), 426, "upgrade_required"),
    "no version": (handshake(KEY), 426, "upgrade_required"),
    "two upgrades": (handshake(KEY, VERSION, b"upgrade: websocket"), 426, "upgrade_required"),
    "two origins": (handshake(KEY, VERSION, b"origin: http://a", b"origin: http://b"), 400, "bad_request"),
    "no subprotocol": (handshake(KEY, VERSION, b"sec-websocket-protocol: a b"), 400, "bad_request"),
    "POST": (handshake(KEY, VERSION, method=b"POST"), 405, "method_not_allowed"),
    "a body": (handshake(KEY, VERSION, b"content-length: 5", body=b"hello"), 400, "bad_request"),
    "chunks": (handshake(KEY, VERSION, b"transfer-encoding: chunked", body=b"0\r\n\r\n"), 400, "bad_request"),
    "a long line": (handshake(KEY, VERSION, b"x-long: " + b"y" * 9000), 431, "headers_too_large"),
    "many headers": (handshake(KEY, VERSION, *[b"x-a: b"] * 200), 431, "headers_too_large"),
    "a long head": (handshake(KEY, VERSION, *[b"cookie: " + b"y" * 9000] * 8), 431, "headers_too_large"),
}


@pytest.fixture(params=["worker", "balancer"])
def port(request: pytest.FixtureRequest, fleet: RunningFleet) -> int:
    return fleet.port if request.param == "balancer" else int(fleet.worker_urls()[0].rsplit(":", 1)[1])


@pytest.mark.parametrize(("request_", "status", "code"), BAD.values(), ids=BAD.keys())
def test_a_malformed_handshake_is_refused_at_once(port: int, request_: bytes, status: int, code: str) -> None:
    """In the one shape, with a request id, and with what HTTP asks for beside it."""
    answer = ask(port, request_, timeout_s=2)
    assert (answer.status, answer.error["code"]) == (status, code)
    if status == 426:
        assert (answer.headers["sec-websocket-version"], answer.headers["upgrade"]) == ("13", "websocket")


def test_a_plain_request_is_told_of_the_upgrade(port: int) -> None:
    """A person who opens the address learns what is there; another method is none of it."""
    answer = ask(port, b"GET " + STREAM + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (answer.status, answer.error["code"], answer.headers["upgrade"]) == (426, "upgrade_required", "websocket")
    posted = ask(port, b"POST " + STREAM + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
    assert (posted.status, posted.headers["allow"]) == (405, "GET")


def test_an_unknown_path_is_not_found(port: int) -> None:
    """As HTTP would have it, and without an error in the log."""
    answer = ask(port, handshake(KEY, VERSION).replace(STREAM, STREAM + b"s"))
    assert (answer.status, answer.error["code"]) == (404, "route_not_found")


def test_long_cookies_are_no_hindrance(port: int) -> None:
    """A browser sends those of every page of the host; nothing here reads them."""
    answer = ask(port, handshake(KEY, VERSION, *[b"cookie: " + b"y" * 9000] * 6), timeout_s=5)
    assert answer.status == 101


@asynccontextmanager
async def served(application: ASGIApp) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to an application, over which a handshake has been sent."""
    ws = StrictSocketProtocol
    server = uvicorn.Server(
        uvicorn.Config(application, http=BoundedHttpProtocol, ws=ws, lifespan="off", log_config=None)
    )
    listener = bind("127.0.0.1", free_port(0))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(handshake(KEY, VERSION))
    yield reader, writer
    writer.close()
    server.should_exit = True
    await serving


async def test_a_handshake_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the application neither accepts nor refuses it."""
    monkeypatch.setattr("fleet.http_protocol.HEAD_TIMEOUT_S", 0.3)

    async def application(_scope: Scope, receive: Receive, _send: Send) -> None:
        while (await receive())["type"] != "websocket.disconnect":
            pass

    async with served(application) as (reader, _):
        assert b"101" not in await asyncio.wait_for(reader.read(), 3)


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_caller_that_leaves_is_no_crash(accepts: bool) -> None:
    """Whatever was being sent to it: neither a success nor an error of ours."""

    async def application(_scope: Scope, receive: Receive, send: Send) -> None:
        if accepts:
            await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        if not accepts:
            raise NotReady("nobody hears this")
        await send({"type": "websocket.send", "text": "nor this"})

    with capture_logs() as entries:
        async with served(SocketEdge(application)) as (reader, writer):
            if accepts:
                await reader.readuntil(b"\r\n\r\n")
            writer.close()
            await writer.wait_closed()
    assert [(entry["event"], entry["outcome"]) for entry in entries] == [("socket", "client_gone")]
