"""HTTP as it looks on the wire, for tests of what no client library would send."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer read from a socket; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error it holds, which must have the one shape and the request id of the head."""
        body = json.loads(self.body)
        assert set(body) == {"error"}
        assert set(body["error"]) == {"code", "message", "param", "request_id"}
        assert body["error"]["request_id"] == self.headers["x-request-id"]
        assert body["error"]["message"]
        error: dict[str, Any] = body["error"]
        return error


def read_answer(connection: socket.socket, method: str = "GET") -> Answer:
    """The next answer. Raises `TimeoutError` where none comes, `ConnectionError` where it breaks off."""
    file = connection.makefile("rb")
    status_line = file.readline()
    if not status_line:
        raise ConnectionError("closed without an answer")
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    body = b""
    if method != "HEAD":
        if headers.get("transfer-encoding") == "chunked":
            while size := int(file.readline(), 16):
                body += file.read(size)
                file.readline()
            file.readline()
        else:
            body = file.read(int(headers.get("content-length", 0)))
    return Answer(int(status_line.split()[1]), headers, body)


def ask(port: int, request: bytes, *, method: str = "GET", timeout_s: float = 5) -> Answer:
    """What a request is answered, on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(request)
        return read_answer(connection, method)
