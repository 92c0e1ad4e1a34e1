"""Multipart forms, as strict as JSON bodies are."""

from __future__ import annotations

from typing import cast

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from fleet.errors import UnknownField


async def _refuse_unknown_fields(request: Request) -> None:
    """Raises `UnknownField` for one that the route does not take: a misspelt one would be lost without a word."""
    known = {field.alias for field in cast(APIRoute, request.scope["route"]).dependant.body_params}
    for name in await request.form():
        if name not in known:
            raise UnknownField(f"there is no field {name[:128]!r}", param=name[:128])


STRICT_FORM = Depends(_refuse_unknown_fields)
