"""Server-sent events as both processes write them."""

from __future__ import annotations

import json

from starlette.types import Scope

from fleet.errors import FleetError


def event(kind: str, data: str) -> bytes:
    return f"event: {kind}\ndata: {data}\n\n".encode()


def error_event(error: FleetError, scope: Scope) -> bytes:
    """What ends a stream that cannot be finished."""
    return event("error", json.dumps({"type": "error", **error.body(scope["state"]["request_id"])}))
