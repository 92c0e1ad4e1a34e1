"""A request as it goes to a worker, whichever worker it goes to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from multidict import CIMultiDict
from starlette.types import Scope

from fleet.bodies import Body
from fleet.contract import REQUEST_ID_HEADER
from fleet.deadlines import TIMEOUT_HEADER, remaining_s
from fleet.errors import BadRequest, RouteNotFound
from fleet.routes import is_speech

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
REQUEST_ID = REQUEST_ID_HEADER.encode()
_TIMEOUT = TIMEOUT_HEADER.lower().encode()
_NOT_PASSED_ON = HOP_BY_HOP | {
    *(b"host", b"content-length", b"expect", b"origin", b"x-worker", b"x-priority", _TIMEOUT, REQUEST_ID)
}

_PLAIN = re.compile(rb"[\w/.-]*", re.ASCII)
_TARGET_SAFE = "!$%&'()*+,/:;=?@[]|{}<>^`\"\\"


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it goes to a worker. `replayable`: a second worker may be sent it after a first one was."""

    scope: Scope
    target: str
    headers: Headers
    body: Body
    replayable: bool

    @staticmethod
    def of(scope: Scope, body: Body) -> Call:
        _refuse_odd_path(scope["path"])
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers = [pair for pair in scope["headers"] if pair[0] not in _NOT_PASSED_ON]
        values = b"".join([value for _, value in headers])
        if b"\n" in values or b"\r" in values:
            raise BadRequest("a header's value holds a line break")
        headers.append((REQUEST_ID, scope["state"]["request_id"].encode()))
        if body.size:
            headers.append((b"content-length", str(body.size).encode()))
        replayable = scope["method"] in ("GET", "HEAD") or is_speech(scope)
        return Call(scope, quoted(target), headers, body, replayable)

    @property
    def method(self) -> str:
        return str(self.scope["method"])

    def headers_now(self) -> Headers:
        """With what is left of its time."""
        left_s = remaining_s(self.scope)
        return self.headers if left_s is None else [*self.headers, (_TIMEOUT, b"%.3f" % max(left_s, 0.001))]

    def headers_as_text(self) -> CIMultiDict[str]:
        """As aiohttp takes them."""
        return CIMultiDict((name.decode("latin-1"), _text(value)) for name, value in self.headers_now())

    def on_wire(self, host: str) -> bytes | None:
        """As it is written to a connection; None for what is not small speech."""
        content = self.body.content()
        if not (self.replayable and self.method == "POST" and isinstance(content, bytes) and content):
            return None
        lines = [f"POST {self.target} HTTP/1.1\r\nhost: {host}\r\n".encode()]
        lines += [b"%b: %b\r\n" % pair for pair in self.headers_now()]
        return b"".join((*lines, b"\r\n", content))


def quoted(target: bytes) -> str:
    """A request's target as it may be sent on: what is neither reserved nor printable is escaped."""
    return target.decode() if _PLAIN.fullmatch(target) else quote(target, safe=_TARGET_SAFE)


def _text(value: bytes) -> str:
    """A header's value, so that UTF-8, which is what is sent, gives the same bytes where it can; without the white
    space around it, which is no part of it (RFC 9110, 5.5).
    """
    try:
        return value.strip().decode()
    except UnicodeDecodeError:
        return value.strip().decode("latin-1")


def _refuse_odd_path(path: str) -> None:
    """A target that names no path, or climbs out of the one it names: workers' own routes are not to be reached so."""
    if not path.startswith("/") or not {".", ".."}.isdisjoint(path.split("/")):
        raise RouteNotFound(f"there is nothing at {path}")
