"""A worker that passes its probes and then fails in one given way: for what a real worker cannot be made to do."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection
from typing import Self

from fleet.contract import Readiness, WorkerHealth
from tests.running import free_port

Fault = Callable[[asyncio.StreamWriter], Awaitable[None]]

HEALTH = WorkerHealth(
    name="faulty",
    version="0",
    engine="espeak",
    model="espeak-ng-1.52.0",
    device="cpu",
    demo_voice=True,
    ready=True,
    reason=None,
    voices=1,
    languages=1,
    running_jobs=0,
    queued_jobs=0,
    rtf=None,
    ttfa_s=None,
    uptime_s=1,
    memory_bytes=1,
    pid=1,
)
_OPEN = b"HTTP/1.1 200 OK\r\ncontent-type: audio/pcm\r\ntransfer-encoding: chunked\r\n\r\n"


async def close_before_headers(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def close_after_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(_OPEN)
    await writer.drain()


async def close_mid_stream(writer: asyncio.StreamWriter) -> None:
    writer.write(_OPEN + b"4\r\nRIFF\r\n")
    await writer.drain()


async def never_answer(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def answer_full(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 2\r\nretry-after: 7\r\n\r\n{}")
    await writer.drain()


async def answer_unavailable(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\nretry-after: 7\r\n\r\n{}")
    await writer.drain()


async def answer_late(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.5)
    writer.write(_OPEN + b"4\r\nRIFF\r\n0\r\n\r\n")
    await writer.drain()


async def answer_bad_gateway(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 2\r\n\r\n{}")
    await writer.drain()


async def answer_pending(writer: asyncio.StreamWriter) -> None:
    body = b'{"error": {"code": "voice_pending", "message": "wait", "param": null, "request_id": null}}'
    writer.write(b"HTTP/1.1 503 -\r\nretry-after: 3\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


async def answer_garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"SMTP ready\r\n\r\n")
    await writer.drain()


class FaultyWorker:
    """Serves `/ready` and `/health` well and every POST, or the methods of `of`, with the fault; counts those."""

    def __init__(
        self,
        fault: Fault,
        *,
        store_id: str | None = None,
        of: Collection[str] = ("POST",),
        health: WorkerHealth = HEALTH,
    ) -> None:
        self._of = {method.encode() for method in of}
        self.port = free_port(0)
        self.url = f"http://127.0.0.1:{self.port}"
        self.posts = 0
        self._fault = fault
        self._health = health.model_copy(update={"store_id": store_id})
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", self.port)
        asyncio.run_coroutine_threadsafe(starting, self._loop).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(_end_others(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.split(b" ", 1)[0] in self._of:
            self.posts += 1
            await self._fault(writer)
        else:
            model = self._health if b"/health" in head else Readiness(ready=True)
            body = model.model_dump_json().encode()
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()
        writer.close()


async def _end_others() -> None:
    """All tasks of this loop but this one."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
