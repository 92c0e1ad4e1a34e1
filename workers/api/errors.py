"""What FastAPI and Starlette find wrong with a request, said as this project's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from fleet.errors import (
    BadRequest,
    FleetError,
    InvalidEncoding,
    InvalidJson,
    InvalidValue,
    MethodNotAllowed,
    MissingField,
    RouteNotFound,
    StorageFull,
    UnknownField,
    UnsupportedMediaType,
)
from fleet.files import NO_ROOM
from workers.api.methods import ASKED_METHOD, methods_of

_COUNTED = re.compile(r"Value should have at (least|most) (\d+) items? after validation, not \d+")
"""What pydantic says of a text's length where the text has been looked at before."""


def from_validation(error: RequestValidationError, content_type: str) -> FleetError:
    """The first thing wrong with a request, naming its field."""
    return _told(error.errors()[0], content_type)


def from_pydantic(error: ValidationError) -> FleetError:
    """The first thing wrong with a message."""
    first = error.errors()[0]
    if not first["loc"] and not str(first["type"]).startswith("union_tag"):
        return InvalidValue("a message must be a JSON object")
    if str(first["type"]).startswith("union_tag"):
        return InvalidValue("type must be start, text, flush, cancel or end", param="type")
    return _told({**first, "loc": ("message", *first["loc"][1:])}, "application/json")


def _told(first: Mapping[str, Any], content_type: str) -> FleetError:
    kind, location = str(first["type"]), first["loc"]
    if kind == "json_invalid":
        return InvalidJson(f"this is not JSON: {first.get('ctx', {}).get('error', first['msg'])}")
    if kind == "string_unicode" and len(location) == 1:
        return InvalidValue("the name of a field must be valid Unicode, without lone surrogates")
    if tuple(location) == ("body",):
        if kind == "missing":
            return InvalidJson("the body is empty; it must be a JSON object")
        if not is_json(content_type):
            return UnsupportedMediaType("the body must be JSON, sent with Content-Type: application/json")
        return InvalidValue("the body must be a JSON object")
    field, inner = _field(location), _inner(location)
    if inner and kind in ("extra_forbidden", "missing"):
        said = f"there is no field {inner!r} in it" if kind == "extra_forbidden" else f"it needs {inner!r}"
        return InvalidValue(f"{field}: {said}", param=field)
    if kind == "extra_forbidden":
        return UnknownField(f"there is no field {field!r}", param=field)
    if kind == "missing":
        return MissingField(f"{field} is required", param=field)
    return InvalidValue(f"{field}: {readable(str(first['msg']))}", param=field)


def from_http(error: HTTPException, request: Request) -> FleetError:
    """What the framework refuses by itself, and what it wrapped while it read the body."""
    path = request.url.path
    if isinstance(error.__cause__, FleetError):
        return error.__cause__
    if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM:
        return StorageFull("there is no room for the upload")
    if error.status_code == 404:
        return RouteNotFound(f"there is nothing at {path}")
    if error.status_code == 405:
        method = request.scope.get(ASKED_METHOD, request.method)
        allowed = methods_of(path, request.app.routes)
        return MethodNotAllowed(f"{path} does not take {method}").with_header("allow", allowed)
    if isinstance(error.__cause__, UnicodeDecodeError):
        return InvalidEncoding("the body is not valid UTF-8")
    if isinstance(error.__cause__, RecursionError):
        return InvalidJson("the body is nested too deeply")
    if isinstance(error.__cause__, ValueError) and is_json(request.headers.get("content-type", "")):
        return InvalidJson("a number in the body has too many digits")
    return BadRequest(f"the request cannot be read: {error.detail}")


def is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _field(location: Sequence[Any]) -> str:
    """`('body', 'voice', 'VoiceReference', 'id')` is the field `voice`; what a voice sets is named in full."""
    if location[1:2] == ("defaults",) and len(location) > 2:
        return f"defaults.{location[2]}"
    return str(location[1]) if len(location) > 1 else str(location[0])


def _inner(location: Sequence[Any]) -> str | None:
    """The field of an object that is itself a field's value, but for what a voice sets."""
    return str(location[-1]) if len(location) > 2 and location[1] != "defaults" else None


def readable(message: str) -> str:
    """What pydantic says of a value, in words for a person."""
    if (counted := _COUNTED.fullmatch(message)) is not None:
        return "must not be empty" if counted[1] == "least" else f"may hold at most {counted[2]} characters"
    return message.removeprefix("Value error, ")
