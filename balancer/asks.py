"""What the balancer reads of a request for speech: how long its text is, its voice and its model."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import pydantic_core
from starlette.types import Scope

from balancer.admission import Priority, Ticket
from balancer.policy import Ask
from fleet.bodies import Body
from fleet.errors import InvalidValue
from fleet.headers import header

PRIORITY_HEADER = "X-Priority"

_TEXTS = ("input", "text")
_VOICES = ("voice", "predefined_voice_id", "reference_audio_filename", "emotion")
"""An emotion stands for its voices where no voice is named."""

CONNECTION = Ask(chars=0)
"""A WebSocket, whose text is yet to be written."""


def ticket_of(scope: Scope, ask: Ask) -> Ticket:
    """The request's place in the queue. Raises `InvalidValue` for a priority there is not."""
    given = header(scope, PRIORITY_HEADER)
    priority = Priority.interactive if given is None else Priority.__members__.get(given)
    if priority is None:
        known = ", ".join(Priority)
        raise InvalidValue(f"{PRIORITY_HEADER} must be one of: {known}", param=PRIORITY_HEADER)
    client = scope.get("client")
    caller = scope["state"].get("key") or (client[0] if client else "")
    return Ticket(ask, priority, caller)


def ask_of(scope: Scope, body: Body) -> Ask:
    """What can be read of it; a body that is no good is for the worker to refuse, which knows why."""
    fields = _fields(scope, body)
    text = next((value for name in _TEXTS if isinstance(value := fields.get(name), str)), "")
    return Ask(chars=max(1, len(text)), voice=_voice(fields), model=_string(fields.get("model")))


def _fields(scope: Scope, body: Body) -> dict[str, Any]:
    if scope["method"] == "GET":
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return {name: values[-1] for name, values in query.items()}
    try:
        fields = pydantic_core.from_json(body.start())
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _voice(fields: dict[str, Any]) -> str | None:
    for name in _VOICES:
        value = fields.get(name)
        if isinstance(value, dict):
            value = value.get("id")
        if voice := _string(value):
            return voice
    return None


def _string(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
