"""Which methods a path takes: HEAD where GET is, and what a refusal of another one names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

_WITHOUT_HEAD = ("/tts-stream", "/voices/events")
"""What a head alone would have spoken, and what never ends."""

ASKED_METHOD = "asked_method"
"""The scope's key for the method that the caller sent, where GET stands in for it."""


class HeadAsGet:
    """Has `app` answer HEAD as GET; the server sends no body to the caller (RFC 9110, 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD" and scope["path"] not in _WITHOUT_HEAD:
            scope = {**scope, "method": "GET", ASKED_METHOD: "HEAD"}
        await self.app(scope, receive, send)


def methods_of(path: str, routes: Sequence[BaseRoute]) -> str:
    """What `Allow` says of the path."""
    methods = {method for taken in _matching(path, routes) for method in taken}
    if "GET" in methods and path not in _WITHOUT_HEAD:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


def _matching(path: str, routes: Sequence[BaseRoute]) -> Iterator[set[str]]:
    for route in iter_route_contexts(routes):
        pattern: re.Pattern[str] | None = getattr(route, "path_regex", None)
        if route.methods and pattern is not None and pattern.match(path):
            yield route.methods
