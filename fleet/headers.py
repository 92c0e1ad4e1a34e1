"""A request's headers, read where they lie: starlette's class would be built and walked anew for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def header(scope: Mapping[str, Any], name: str) -> str | None:
    """The value, of the first line of that name; None where there is none. ASGI gives the names in lower case."""
    wanted = name.lower().encode()
    for key, value in scope["headers"]:
        if key == wanted:
            return str(value, "latin-1")
    return None
