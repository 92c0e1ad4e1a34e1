"""How long a request may take in all: what its caller says in `X-Request-Timeout`, else the server's own limit."""

from __future__ import annotations

import asyncio
import math

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.asgi import CutShort
from fleet.errors import DeadlineExceeded, InvalidValue
from fleet.headers import header
from fleet.routes import is_speech

TIMEOUT_HEADER = "X-Request-Timeout"
"""Seconds, from a request's acceptance to the last byte of its answer."""


class Deadlines:
    """Ends a request whose time is over: with 504 while its answer has not begun, else by cutting that short.

    Speech has a limit of `limit_s`, which a caller may shorten; other requests have the one that their caller gives.
    `scope["state"]["deadline"]` is the end, on the event loop's clock; it is missing where there is none.
    """

    def __init__(self, app: ASGIApp, *, limit_s: float) -> None:
        self.app = app
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seconds = self._seconds(scope)
        if seconds is None:
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        end = scope["state"]["deadline"] = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(end) as limit:
                await self.app(scope, receive, send_and_note)
        except TimeoutError:
            if not limit.expired():
                raise
            message = f"the request was not done within its {seconds:g} s"
            raise (CutShort(message) if begun else DeadlineExceeded(message)) from None

    def _seconds(self, scope: Scope) -> float | None:
        if scope["type"] != "http":
            return None
        given = header(scope, TIMEOUT_HEADER)
        if given is None:
            return self._limit_s if is_speech(scope) else None
        try:
            seconds = float(given)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise InvalidValue(f"{TIMEOUT_HEADER} must be a number of seconds above 0", param=TIMEOUT_HEADER)
        return min(seconds, self._limit_s) if is_speech(scope) else seconds


def remaining_s(scope: Scope) -> float | None:
    """What is left of a request's time."""
    end = scope["state"].get("deadline")
    return None if end is None else float(max(0.0, end - asyncio.get_running_loop().time()))
