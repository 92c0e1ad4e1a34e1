"""HTTP/1.1 towards workers, for the requests that there are many of: speech, small and safe to send again.

A parser (httptools, which uvicorn parses with) on an asyncio protocol, and nothing between a chunk's arrival and its
reader. Everything else goes through aiohttp.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import httptools

from balancer.stalls import Stall
from fleet.http_protocol import HEAD_LIMIT

_KEEPALIVE_EXPIRY_S = 20.0
"""Shorter than the workers' keep-alive, so that a connection is never used just as its worker closes it."""

_HIGH_WATER = 2**18
"""Bytes that may wait for a slow reader before the worker is read no further."""

OUR_SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL})
"""What keeps a connection from being made, and says nothing of the worker."""


class WireError(ConnectionError):
    """The worker was lost, or what it said is not HTTP."""


class Refused(WireError):
    """There was no connection: nothing of the request was sent."""


class ConnectTimeout(Refused, TimeoutError):
    """The worker neither took nor refused the connection."""


class Connection(asyncio.Protocol):
    """One connection: a request is written, then its answer is read to the end, then the next. Times out in silence."""

    status = 0
    headers: list[tuple[bytes, bytes]]

    def __init__(self, idle_timeout_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle_timeout_s = idle_timeout_s
        self._silence: Stall
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._complete, self._keeps_alive, self._buffered = True, True, 0  # no answer is awaited
        self.idle_since = 0.0
        self.answered = False
        """Whether anything of the present answer has come."""

    def request(self, data: bytes) -> None:
        """Write one; `head` and `readany` then give its answer."""
        self.headers, self._chunks, self._buffered = [], deque[bytes](), 0
        self._head_bytes, self._in_head, self._complete, self.answered = 0, True, False, False
        self._transport.write(data)

    async def head(self) -> None:
        """Until `status` and `headers` are those of the answer. Raises `WireError` or `TimeoutError`."""
        while self._in_head and not self._complete:
            await self._something()

    async def readany(self) -> bytes:
        """What there is of the body, empty at its end. Raises `WireError` or `TimeoutError`."""
        while not self._chunks:
            if self._complete:
                return b""
            await self._something()
        chunk = self._chunks.popleft() if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._buffered > _HIGH_WATER:
            self._transport.resume_reading()
        self._buffered = 0
        return chunk

    @property
    def reusable(self) -> bool:
        """The answer is over, the worker keeps the connection, and it is being read."""
        usable = self._complete and self._keeps_alive and self._error is None
        return usable and self._buffered <= _HIGH_WATER and not self._transport.is_closing()

    def close(self) -> None:
        self._transport.abort()

    async def _something(self) -> None:
        if self._error is not None:
            raise self._error
        waiter = self._waiter = self._loop.create_future()
        self._silence.begin()
        try:
            await waiter
        finally:
            self._waiter = None
            self._silence.end()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _lost(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        if self._complete:  # the answer is whole all the same
            self._wake()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._error)

    # asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self._silence = Stall(self._idle_timeout_s, lambda: self._lost(TimeoutError("it was silent for too long")))

    def data_received(self, data: bytes) -> None:
        if self._complete:  # it says more than it was asked: whose answer would that be?
            self._error = WireError("it spoke without being asked")
            self._transport.abort()
            return
        self.answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._lost(WireError(f"its answer is not HTTP: {error}"))
            self._transport.abort()
        self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._silence.close()
        if self._complete:
            self._error = self._error or WireError("the connection is over")
            return
        self._lost(WireError(str(exc) if exc else "it closed the connection before its answer was over"))

    # httptools' callbacks

    def on_message_begin(self) -> None:
        if self._complete:  # behind the answer, in the same packet
            raise httptools.HttpParserError("it spoke without being asked")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + len(b": \r\n")
        if self._in_head:
            self.headers.append((name, value.strip()))
        if self._head_bytes > HEAD_LIMIT:
            raise httptools.HttpParserError("its headers are too large")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:  # "100 Continue" and the like come before the answer
            self.headers = []
            return
        self._keeps_alive = self._parser.should_keep_alive()
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        self._chunks.append(body)
        self._buffered += len(body)
        if self._buffered > _HIGH_WATER >= self._buffered - len(body):
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status >= 200:
            self._complete = True


class Wire:
    """The connections to all workers, those that are idle among them."""

    def __init__(self, *, connect_timeout_s: float, idle_timeout_s: float) -> None:
        self._connect_timeout_s, self._idle_timeout_s = connect_timeout_s, idle_timeout_s
        self._idle: dict[str, list[Connection]] = {}
        self._swept: set[str] = set()
        """Addresses whose idle connections are looked through again and again."""

    async def ask(self, url: str, data: bytes) -> Connection:
        """The connection over which the answer comes, its head read. To be given back by `release`.

        Raises `Refused`, `WireError`, or `TimeoutError` for a worker that is silent.
        """
        reused = self._reused(url)
        if reused is not None:
            try:
                return await self._exchange(reused, data)
            except WireError:
                if reused.answered:
                    raise
                # It was closed as we began to use it: the worker has not seen the request.
        return await self._exchange(await self._connected(url), data)

    def release(self, url: str, connection: Connection) -> None:
        """Keep it for the next request if its answer is over, else close it."""
        if connection.reusable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.setdefault(url, []).append(connection)
            if url not in self._swept:
                self._swept.add(url)
                self._sweep(url)
        else:
            connection.close()

    def _sweep(self, url: str) -> None:
        """Close what has been idle for too long, also of a worker that is asked no more."""
        loop, idle = asyncio.get_running_loop(), self._idle.get(url, [])
        while idle and idle[0].idle_since <= loop.time() - _KEEPALIVE_EXPIRY_S:
            idle.pop(0).close()
        if idle:
            loop.call_later(_KEEPALIVE_EXPIRY_S, self._sweep, url)
        else:
            self._idle.pop(url, None)
            self._swept.discard(url)

    def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _exchange(self, connection: Connection, data: bytes) -> Connection:
        connection.request(data)
        try:
            await connection.head()
        except BaseException:
            connection.close()
            raise
        return connection

    def _reused(self, url: str) -> Connection | None:
        idle = self._idle.get(url, [])
        oldest = asyncio.get_running_loop().time() - _KEEPALIVE_EXPIRY_S
        while idle:
            connection = idle.pop()
            if connection.reusable and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connected(self, url: str) -> Connection:
        parts = urlsplit(url)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._idle_timeout_s), parts.hostname or "", parts.port or 80
                )
        except TimeoutError:
            raise ConnectTimeout(f"no connection within {self._connect_timeout_s:g} s") from None
        except OSError as error:
            kind = WireError if error.errno in OUR_SHORTAGE else Refused
            raise kind(str(error)) from error
        return connection
