"""Files over HTTP: whole, in part, or not again."""

from __future__ import annotations

import asyncio
import os
import re

from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from fleet.errors import RangeNotSatisfiable
from workers.api.methods import ASKED_METHOD

_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18})")
_TOLD_AGAIN = ("etag", "last-modified", "cache-control")


class StoredFile(FileResponse):
    """A file that stays the same as long as it has its name.

    Who has it already (`If-None-Match`) gets 304. A `Range` that cannot be understood is passed over, as a server may
    do (RFC 9110, 14.2). Raises `RangeNotSatisfiable` for one that holds nothing of the file.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope.get(ASKED_METHOD, scope["method"])
        self.stat_result = await asyncio.to_thread(os.stat, self.path)
        self.set_stat_headers(self.stat_result)
        asked = Headers(scope=scope)
        if self._is_held(asked.get("if-none-match", "")):
            told = {name: self.headers[name] for name in _TOLD_AGAIN if name in self.headers}
            await Response(status_code=304, headers=told)(scope, receive, send)
            return
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"range", b"if-range")]
        if method == "GET" and asked.get("if-range") in (None, self.headers["etag"], self.headers["last-modified"]):
            ranges = _ranges(asked.get("range", ""), self.stat_result.st_size)
            headers += [(b"range", f"bytes={','.join(ranges)}".encode())] if ranges else []
        await super().__call__({**scope, "method": method, "headers": headers}, receive, send)

    def _is_held(self, tags: str) -> bool:
        return any(tag.strip().removeprefix("W/") in ("*", self.headers["etag"]) for tag in tags.split(","))


def _ranges(asked: str, size: int) -> list[str]:
    """Those that hold something of the file; none where the header is malformed or counts something else."""
    unit, _, listed = asked.partition("=")
    parts = [part.strip() for part in listed.split(",") if part.strip()]
    found = [_RANGE.fullmatch(part) for part in parts]
    if unit.strip().lower() != "bytes" or not found:
        return []
    ranges = []
    for match in found:
        if match is None:
            return []
        first, last = (int(match[1]), int(match[2] or size)) if match[1] else (max(0, size - int(match[3])), size)
        if match[2] and last < first:
            return []
        if first < size:
            ranges.append(f"{first}-{min(last, size - 1)}")
    if not ranges:
        raise RangeNotSatisfiable(f"the file holds {size} bytes").with_header("content-range", f"bytes */{size}")
    return ranges
