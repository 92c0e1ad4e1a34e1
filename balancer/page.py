"""The web page's built files, and what stands in their place where they have not been built."""

from __future__ import annotations

import mimetypes
import os
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Receive, Scope, Send

from fleet.errors import MethodNotAllowed, RouteNotFound
from fleet.headers import header

BUILT = Path(__file__).resolve().parent.parent / "webui" / "dist"
"""Where `scripts/up` builds the page."""

_PREFIX = "/ui/"
_INDEX = "index.html"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing of the page may come from elsewhere, or go there."""

_GUARDED = {
    "content-security-policy": _POLICY,
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_NOT_BUILT = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Chatterbox Fleet</title>
<h1>Chatterbox Fleet</h1>
<p>The service runs. Its web page has not been built: <code>scripts/up</code> builds it where Node 20.19 or newer is
installed, and says what is missing where it is not.</p>
<p><a href="/docs">The API's documentation</a></p>
</html>
"""


class Page:
    """The ASGI endpoint of the page. `directory` is where it was built, or will be.

    Raises `RouteNotFound` and `MethodNotAllowed`.
    """

    def __init__(self, directory: Path) -> None:
        self._index = directory / _INDEX
        self._files = _Files(directory=directory, check_dir=False)

    def answers(self, scope: Scope) -> bool:
        """Whether a request is for the page: its files, or `/` where a browser asks, which takes HTML."""
        path = scope["path"]
        return path.startswith(_PREFIX) or (path in ("/", "/ui") and _takes_html(scope))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            message = f"{scope['path']} does not take {scope['method']}"
            raise MethodNotAllowed(message).with_header("allow", "GET, HEAD")
        response = await self._response(scope)
        response.headers.update(_GUARDED)
        await response(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        name = scope["path"].removeprefix(_PREFIX).lstrip("/") if scope["path"].startswith(_PREFIX) else ""
        if not name and not self._index.is_file():
            return HTMLResponse(_NOT_BUILT, headers={"cache-control": "no-store", "vary": "Accept"})
        try:
            response = await self._files.get_response(name or _INDEX, scope)
        except HTTPException:
            raise RouteNotFound(f"there is nothing at {scope['path']}") from None
        if not name:
            response.headers["vary"] = "Accept, Accept-Encoding"
        return response


class _Files(StaticFiles):
    """Files whose gzipped twins, where there are any, are sent to those who take them."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        path, asked = Path(full_path), Headers(scope=scope)
        hashed = path.parent.name == "assets"
        headers = {
            "cache-control": "public, max-age=31536000, immutable" if hashed else "no-cache",
            "vary": "Accept-Encoding",
        }
        twin = path.with_name(f"{path.name}.gz")
        if _takes_gzip(asked) and twin.is_file():
            headers["content-encoding"] = "gzip"
            sent, stat_result = twin, twin.stat()
        else:
            sent = path
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        response = FileResponse(sent, status_code, headers, media_type=media_type, stat_result=stat_result)
        return NotModifiedResponse(response.headers) if self.is_not_modified(response.headers, asked) else response


def _takes_html(scope: Scope) -> bool:
    """Browsers name it; `*/*`, as programs send, is answered as to them."""
    return "text/html" in (header(scope, "accept") or "").lower()


def _takes_gzip(asked: Headers) -> bool:
    offers = [offer.replace(" ", "") for offer in asked.get("accept-encoding", "").lower().split(",")]
    return any(offer == "gzip" or (offer.startswith("gzip;q=") and offer != "gzip;q=0") for offer in offers)
