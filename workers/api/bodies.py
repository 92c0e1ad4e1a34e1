"""JSON bodies, in the one encoding that is told of them."""

from __future__ import annotations

import json

from fastapi import Depends
from fastapi.requests import HTTPConnection, Request

from fleet.errors import InvalidEncoding
from workers.api.errors import is_json


async def _refuse_other_encodings(connection: HTTPConnection) -> None:
    """Raises `InvalidEncoding` for UTF-16 and UTF-32, which Python's reader of JSON takes without a word."""
    if not isinstance(connection, Request) or not is_json(connection.headers.get("content-type", "")):
        return
    if not json.detect_encoding(await connection.body()).startswith("utf-8"):
        raise InvalidEncoding("the body is not in UTF-8")


JSON_IN_UTF8 = Depends(_refuse_other_encodings)
