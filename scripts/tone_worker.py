#!/usr/bin/env python3
"""A worker that speaks a tone: what a balancer is measured over, so cheap that it is not what is measured.

`scripts/tone_worker.py --port 6100` answers the probes as a worker does, and every POST with chunks of 24 kHz PCM as
they fall due. The first eight bytes of each chunk tell when it was written: nanoseconds of CLOCK_MONOTONIC, little
endian. A JSON body may change what is spoken for one request, by the names of `Tone`: {"tone": {"audio_s": 1}}.

It has a limited number of places if it is told so; more requests wait in turn, and beyond `--max-jobs` they are refused
with 429.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import httptools
import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from tone import STAMP_BYTES, Tone, sound

from fleet.contract import REQUEST_ID_HEADER, Readiness, WorkerHealth
from fleet.errors import (
    BadRequest,
    BodyTooLarge,
    Draining,
    FleetError,
    MethodNotAllowed,
    Overloaded,
    RouteNotFound,
)
from fleet.routes import DRAIN_PATH

_LONGEST_BODY = 2**20
_CHUNKS_IN_A_ROW = 16
"""Without a pace, before the other streams have their turn."""
_TIMER_S = 0.001
"""uvloop's timers are rounded to this."""


class Places:
    """Where speeches are spoken, so many at once (0 for any number); the others wait in turn."""

    def __init__(self, slots: int, max_jobs: int) -> None:
        self.running = self.waiting = 0
        self._max_jobs = max_jobs
        self.count = slots or max_jobs
        self._free = asyncio.Semaphore(self.count)

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Inside, a place is ours. Raises `Overloaded`."""
        if self.running + self.waiting >= self._max_jobs:
            raise Overloaded("the queue of this worker is full", retry_after=1)
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._free.release()


class ToneWorker:
    """What all connections share."""

    def __init__(self, name: str, tone: Tone, places: Places) -> None:
        self.tone, self.places = tone, places
        self.draining = False
        self._name, self._process, self._began_at = name, psutil.Process(), time.monotonic()

    def health(self) -> WorkerHealth:
        return WorkerHealth(
            name=self._name,
            version="0",
            engine="tone",
            model="tone-1",
            device="cpu",
            demo_voice=True,
            ready=True,
            reason=None,
            voices=1,
            languages=1,
            running_jobs=self.places.running,
            queued_jobs=self.places.waiting,
            rtf=None,
            ttfa_s=None,
            uptime_s=time.monotonic() - self._began_at,
            memory_bytes=self._process.memory_info().rss,
            pid=os.getpid(),
            concurrency=self.places.count,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One that is whole, or `wrong`: then the connection ends with the answer."""

    method: bytes = b""
    path: bytes = b""
    body: bytes = b""
    request_id: str | None = None
    keep_alive: bool = False
    wrong: FleetError | None = None


class Connection(asyncio.Protocol):
    """Requests answered one after the other, however they came; all ends when the other side leaves."""

    def __init__(self, worker: ToneWorker) -> None:
        self._worker = worker
        self._requests: asyncio.Queue[Request] = asyncio.Queue()
        self._parser = httptools.HttpRequestParser(self)
        self._deaf = False
        self._takes = asyncio.Event()
        self._takes.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._serving = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(BadRequest("this is no HTTP request that a tone worker takes"))

    def eof_received(self) -> None:
        self._serving.cancel()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._serving.cancel()

    def pause_writing(self) -> None:
        self._takes.clear()

    def resume_writing(self) -> None:
        self._takes.set()

    def on_message_begin(self) -> None:
        self._path = self._body = b""
        self._request_id: str | None = None

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == REQUEST_ID_HEADER.encode():
            self._request_id = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        if len(self._body) + len(body) <= _LONGEST_BODY:
            self._body += body
        else:
            self._refuse(BodyTooLarge(f"a body may hold at most {_LONGEST_BODY} bytes"))

    def on_message_complete(self) -> None:
        method, path = self._parser.get_method(), self._path.partition(b"?")[0]
        keep_alive = self._parser.should_keep_alive()
        if not self._deaf:
            self._requests.put_nowait(Request(method, path, self._body, self._request_id, keep_alive))

    def _refuse(self, error: FleetError) -> None:
        self._deaf = True
        self._requests.put_nowait(Request(wrong=error))

    async def _serve(self) -> None:
        keep_alive = True
        while keep_alive:
            request = await self._requests.get()
            keep_alive = request.keep_alive
            try:
                await self._answer(request)
            except FleetError as error:
                more = "" if error.retry_after is None else f"retry-after: {math.ceil(error.retry_after)}\r\n"
                self._send(json.dumps(error.body(request.request_id)), request, error.status, more)
        self._transport.close()

    async def _answer(self, request: Request) -> None:
        if request.wrong is not None:
            raise request.wrong
        if request.method == b"POST":
            tone = self._worker.tone.changed(request.body)
            async with self._worker.places.taken():
                await self._speak(tone, request)
        elif request.method == b"PUT" and request.path == DRAIN_PATH.encode():
            self._worker.draining = b"true" in request.body
            self._send("{}", request)
        elif request.path not in (b"/ready", b"/health"):
            raise RouteNotFound("a tone worker has /ready, /health, /draining and speech")
        elif request.method != b"GET":
            raise MethodNotAllowed("only GET is taken here")
        elif self._worker.draining and request.path == b"/ready":
            raise Draining("it finishes what it has and takes nothing new")
        else:
            answer = Readiness(ready=True) if request.path == b"/ready" else self._worker.health()
            self._send(answer.model_dump_json(), request)

    async def _speak(self, tone: Tone, request: Request) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm\r\ntransfer-encoding: chunked\r\n" + _ending(request)
        before, after = b"%x\r\n" % tone.chunk_bytes, sound(tone.chunk_bytes) + b"\r\n"
        first_due = time.monotonic() + tone.first_byte_ms / 1000
        for number in range(tone.chunks):
            wait_s = first_due + number * tone.interval_s - time.monotonic()
            if wait_s >= _TIMER_S or number % _CHUNKS_IN_A_ROW == _CHUNKS_IN_A_ROW - 1:
                await asyncio.sleep(max(0.0, wait_s))
            await self._takes.wait()
            stamp = time.monotonic_ns().to_bytes(STAMP_BYTES, "little")
            end = b"0\r\n\r\n" if number == tone.chunks - 1 else b""
            self._transport.write(b"".join((head, before, stamp, after, end)))
            head = b""

    def _send(self, content: str, request: Request, status: int = 200, more: str = "") -> None:
        body = content.encode()
        head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
        self._transport.write(head.encode() + _ending(request) + (b"" if request.method == b"HEAD" else body))


def _ending(request: Request) -> bytes:
    return b"\r\n" if request.keep_alive else b"connection: close\r\n\r\n"


async def serve(port: int, worker: ToneWorker) -> None:
    """Until SIGTERM or SIGINT, which cut off what is being spoken."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    server = await loop.create_server(lambda: Connection(worker), "127.0.0.1", port, backlog=2048)
    await told.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", default="tone-0")
    for field in fields(Tone):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    parser.add_argument("--slots", type=int, default=0, help="requests spoken at once; 0 is any number")
    parser.add_argument("--max-jobs", type=int, default=256, help="spoken and waiting; more are refused")
    options = parser.parse_args()
    tone = Tone(**{field.name: getattr(options, field.name) for field in fields(Tone)})
    uvloop.run(serve(options.port, ToneWorker(options.name, tone, Places(options.slots, options.max_jobs))))


if __name__ == "__main__":
    main()
