"""HTTP/1.1 towards workers, against servers that speak it in every way it may be spoken, and in some it may not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from balancer import wire
from balancer.wire import Connection, ConnectTimeout, Refused, Wire, WireError
from tests.running import free_port

REQUEST = b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm\r\ntransfer-encoding: chunked\r\n\r\n"
WHOLE = CHUNKED + b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\ntrailer: 1\r\n\r\n"

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Counts its connections; `serve` is told of each request, when its head and body have come."""

    def __init__(self, serve: Serve) -> None:
        self.connections = 0
        self._serve = serve
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
                await self._serve(reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def saying(*parts: bytes, then_closing: bool = False) -> Serve:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if then_closing:
            writer.close()

    return serve


def a_wire(idle_timeout_s: float = 5.0) -> Wire:
    return Wire(connect_timeout_s=1, idle_timeout_s=idle_timeout_s)


async def body_of(connection: Connection) -> bytes:
    body = b""
    while chunk := await connection.readany():
        body += chunk
    return body


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
async def test_answer_in_pieces_of_any_size_is_read_whole(size: int) -> None:
    """Chunked, with extensions and a trailer, which is no header of the answer."""
    async with Server(saying(*(WHOLE[n : n + size] for n in range(0, len(WHOLE), size)))).running() as server:
        connection = await a_wire().ask(server.url, REQUEST)
        assert (connection.status, connection.headers[0]) == (200, (b"content-type", b"audio/pcm"))
        assert await body_of(connection) == b"abcdefg"
        assert b"trailer" not in dict(connection.headers)
        assert connection.reusable


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 429 Too Many\r\ncontent-length: 2\r\nretry-after: 7\r\n\r\n{}", 429, b"{}"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", 200, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", 200, b"x"),
    ],
)
async def test_short_answers_leave_the_connection_usable(answer: bytes, status: int, body: bytes) -> None:
    """One connection serves ten requests, one after the other."""
    async with Server(saying(answer)).running() as server:
        connections = a_wire()
        for _ in range(10):
            connection = await connections.ask(server.url, REQUEST)
            assert (connection.status, await body_of(connection)) == (status, body)
            connections.release(server.url, connection)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "reusable"),
    [(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx", False), (CHUNKED + b"1\r\nx\r\n", False)],
)
async def test_connection_that_is_not_at_its_end_is_not_used_again(answer: bytes, reusable: bool) -> None:
    """Nor one that the worker wants closed."""
    async with Server(saying(answer)).running() as server:
        connections = a_wire()
        for _ in range(2):
            connection = await connections.ask(server.url, REQUEST)
            assert await connection.readany() == b"x"
            assert connection.reusable is reusable
            connections.release(server.url, connection)
        assert server.connections == 2


async def test_connection_that_its_worker_closed_meanwhile_is_replaced_unseen() -> None:
    """Whether that is known before the next request or only by its failing; a request that was answered is not."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx")
        await writer.drain()
        writer.transport.abort()

    async with Server(serve).running() as server:
        connections = a_wire()
        for pause_s in (0, 0, 0.05, 0):
            connection = await connections.ask(server.url, REQUEST)
            assert await body_of(connection) == b"x"
            connections.release(server.url, connection)
            await asyncio.sleep(pause_s)
        assert server.connections == 4


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SMTP ready\r\n\r\n", "not HTTP"),
        (b"", "closed the connection"),
        (CHUNKED, "closed the connection"),
        (CHUNKED + b"5\r\nab", "closed the connection"),
        (CHUNKED + b"zz\r\nab", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 70_000 + b"\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n", "not HTTP"),
    ],
)
async def test_answer_that_is_none_is_a_loss(answer: bytes, said: str) -> None:
    """At once, with the reason; and so for whoever reads on."""
    async with Server(saying(answer, then_closing=True)).running() as server:
        connections = a_wire()
        with pytest.raises(WireError, match=said):
            await body_of(await connections.ask(server.url, REQUEST))


async def test_silence_is_a_timeout_and_slowness_is_not() -> None:
    """Each chunk has its time; the sum has none."""

    async def slowly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for _n in range(4):
            await asyncio.sleep(0.15)
            writer.write(b"1\r\nx\r\n")
        await asyncio.sleep(5)

    async with Server(slowly).running() as server:
        connection = await a_wire(0.3).ask(server.url, REQUEST)
        for _ in range(4):
            assert await connection.readany() == b"x"
        with pytest.raises(TimeoutError):
            await connection.readany()
        assert not connection.reusable


async def test_slow_reader_holds_the_worker_back() -> None:
    """What waits for him is bounded, and all of it comes when he reads."""
    sent = 0

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        for _n in range(400):
            writer.write(b"10000\r\n" + bytes(65536) + b"\r\n")
            await writer.drain()
            sent += 65536
        writer.write(b"0\r\n\r\n")

    async with Server(flood).running() as server:
        connection = await a_wire().ask(server.url, REQUEST)
        await asyncio.sleep(0.5)
        assert sent < 20 * 2**20
        first = await connection.readany()
        assert len(first) <= wire._HIGH_WATER + 2**18
        assert len(first) + len(await body_of(connection)) == 400 * 65536


async def test_caller_that_leaves_closes_the_connection() -> None:
    """Cancelled while it waits for a head, nothing is left open."""
    gone = asyncio.Event()

    async def never(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()
        gone.set()

    async with Server(never).running() as server:
        asking = asyncio.create_task(a_wire().ask(server.url, REQUEST))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with asyncio.timeout(1):
            await gone.wait()


async def test_idle_connections_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has waited too long is closed and not used."""
    monkeypatch.setattr(wire, "_KEEPALIVE_EXPIRY_S", 0.05)
    async with Server(saying(WHOLE)).running() as server:
        connections = a_wire()
        for _ in range(2):
            connection = await connections.ask(server.url, REQUEST)
            await body_of(connection)
            connections.release(server.url, connection)
            await asyncio.sleep(0.1)
        assert server.connections == 2


async def test_worker_that_speaks_without_being_asked_is_not_believed() -> None:
    """What it says after its answer is not taken for the answer to the next request."""
    async with Server(saying(WHOLE + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")).running() as server:
        connections = a_wire()
        for _ in range(2):
            connection = await connections.ask(server.url, REQUEST)
            assert await body_of(connection) == b"abcdefg"
            connections.release(server.url, connection)
            await asyncio.sleep(0.05)
        assert server.connections == 2


async def test_nobody_listening_is_a_refusal() -> None:
    """And a host that does not answer a timeout, which is one of those too."""
    with pytest.raises(Refused) as refused:
        await a_wire().ask(f"http://127.0.0.1:{free_port(0)}", REQUEST)
    assert not isinstance(refused.value, TimeoutError)
    assert issubclass(ConnectTimeout, Refused)
    assert issubclass(ConnectTimeout, TimeoutError)


async def test_connection_whose_reading_is_paused_is_not_used_again() -> None:
    """A long answer that nobody has read to its end: the next request would wait for ever."""
    long = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + bytes(300_000)

    class OneRead(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def data_received(self, _: bytes) -> None:
            assert isinstance(self.transport, asyncio.WriteTransport)
            self.transport.write(long)

    server = await asyncio.get_running_loop().create_server(OneRead, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connections = a_wire(idle_timeout_s=1)
    for _ in range(4):
        connection = await connections.ask(url, REQUEST)
        await asyncio.sleep(0.05)
        connections.release(url, connection)
    server.close()


async def test_idle_connections_of_a_worker_that_is_asked_no_more_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without another request to notice them."""
    monkeypatch.setattr(wire, "_KEEPALIVE_EXPIRY_S", 0.05)
    async with Server(saying(WHOLE)).running() as server:
        connections = a_wire()
        asked = [await connections.ask(server.url, REQUEST) for _ in range(3)]
        for connection in asked:
            await body_of(connection)
            connections.release(server.url, connection)
        await asyncio.sleep(0.3)
        assert connections._idle == {}
        assert not any(connection.reusable for connection in asked)
