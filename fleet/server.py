"""Runs one ASGI application on one address until told to stop: what `python -m workers` and `-m balancer` share."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fleet.errors import HeadersTooLarge, PortInUse, StartupError

log = structlog.get_logger()

KEEP_ALIVE_S = 75
"""Longer than any client's idle expiry in front of us, so that we never close a connection it is about to use."""

HEADER_LIMIT = 64 * 1024
"""Bytes a request's line and headers may take together; httptools itself sets no bound."""

LIFELINE_VARIABLE = "FLEET_LIFELINE_FD"
"""Names the file descriptor whose end of file tells a child that its supervisor has died."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, refusing a head above `HEADER_LIMIT` with 431."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > HEADER_LIMIT and not self.transport.is_closing():
            self._refuse_head()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_head = True

    def _refuse_head(self) -> None:
        error = HeadersTooLarge(f"the request line and headers may hold at most {HEADER_LIMIT} bytes")
        body = json.dumps(error.body(None)).encode()
        head = (
            f"HTTP/1.1 {error.status} Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, or `PortInUse`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} on {host} is already in use") from None
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


def serve(make_app: Callable[[], ASGIApp], *, host: str, port: int, shutdown_timeout_s: int) -> None:
    """Bind, build the application and serve it until SIGTERM, SIGINT or the supervisor's death.

    Requests in flight at the end get `shutdown_timeout_s` to finish.
    """
    listener = bind(host, port)
    _follow_lifeline()
    config = uvicorn.Config(
        make_app(),
        http=BoundedHttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # callers are told apart by what they send, never by a header that says who they are
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=shutdown_timeout_s,
    )
    uvicorn.Server(config).run(sockets=[listener])


def exit_with(error: StartupError) -> None:
    """End the process with one clear line for whoever started it."""
    print(f"error: {error.message}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def _follow_lifeline() -> None:
    """End with the supervisor, however it ended: its end of a pipe closes even on SIGKILL."""
    descriptor = os.environ.pop(LIFELINE_VARIABLE, None)
    if descriptor is None:
        return

    def wait() -> None:
        os.read(int(descriptor), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
