"""Server-sent events as both processes write them."""

from __future__ import annotations

import json

from starlette.types import Scope

from fleet.errors import FleetError

_LONGEST_EVENT = 4 * 2**20


class WholeEvents:
    """A stream of events cut between them, so that whoever passes it on can end it with one of his own."""

    def __init__(self) -> None:
        self._begun = b""

    def add(self, chunk: bytes) -> bytes:
        """The events that are whole now; one that is too long to wait for is passed on as it comes."""
        held = self._begun + chunk
        end = held.rfind(b"\n\n") + 2
        if end == 1:
            end = len(held) if len(held) > _LONGEST_EVENT else 0
        self._begun = held[end:]
        return held[:end]

    def rest(self) -> bytes:
        """What is left when the stream has ended well."""
        rest, self._begun = self._begun, b""
        return rest


def event(kind: str, data: str) -> bytes:
    return f"event: {kind}\ndata: {data}\n\n".encode()


def error_event(error: FleetError, scope: Scope) -> bytes:
    """What ends a stream that cannot be finished."""
    return event("error", json.dumps({"type": "error", **error.body(scope["state"]["request_id"])}))
