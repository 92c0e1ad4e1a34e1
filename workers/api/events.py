"""Changes of the library as server-sent events, over the whole fleet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.responses import StreamingResponse

from fleet.library_contract import LibraryEvent
from workers.api.state import WorkerState
from workers.voices.library import Library

router = APIRouter(tags=["voices"])

_HEARTBEAT_S = 15.0
"""Below any proxy's patience with a silent connection."""


class EventsResponse(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "model": LibraryEvent,
        "description": "`id` is the library's revision, `event` the kind, `data` a LibraryEvent as JSON. Revisions have"
        " no gaps: whoever sees one has missed something, and lists anew.",
    }
}


@router.get("/voices/events", response_class=EventsResponse, responses=_STREAM)
async def voice_events(
    worker: WorkerState,
    last_event_id: Annotated[
        str | None,
        Header(pattern=r"^[0-9]{1,18}$", description="The last revision seen; what came after it is sent first."),
    ] = None,
) -> EventsResponse:
    """Voices and emotion profiles that are made, changed, prepared or removed, through any worker, as it happens."""
    library = await worker.library.current()
    since = library.revision if last_event_id is None else int(last_event_id)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return EventsResponse(_events(worker.library, since), headers=headers)


async def _events(library: Library, since: int) -> AsyncGenerator[bytes, None]:
    yield f": revision {library.snapshot.revision}\nretry: 1000\n\n".encode()
    heard_at = time.monotonic()
    while not library.closing.is_set():
        happened = await library.events(since)
        for event in happened:
            since = event.revision
            told = LibraryEvent(
                revision=event.revision, kind=event.kind, id=event.subject, name=event.name, at=event.at
            )
            yield f"id: {event.revision}\nevent: {event.kind}\ndata: {told.model_dump_json()}\n\n".encode()
            heard_at = time.monotonic()
        if not happened:
            await _next(library, heard_at + _HEARTBEAT_S - time.monotonic())
            if time.monotonic() - heard_at >= _HEARTBEAT_S:
                yield b": still here\n\n"
                heard_at = time.monotonic()


async def _next(library: Library, limit_s: float) -> None:
    """Until the library changes, the worker shuts down, or the time is over."""
    waits = {asyncio.create_task(library.changed(limit_s)), asyncio.create_task(library.closing.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
