"""Runs one ASGI application on one address until told to stop: what `python -m workers` and `-m balancer` share."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable

import structlog
import uvicorn
from starlette.types import ASGIApp

from fleet.http_protocol import BoundedHttpProtocol
from fleet.inherited import inherited_listeners
from fleet.notify import notify, ready
from fleet.socket_protocol import StrictSocketProtocol
from fleet.startup_errors import PortInUse, StartupError

log = structlog.get_logger()

KEEP_ALIVE_S = 75
"""Longer than any client's idle expiry in front of us, so that we never close a connection it is about to use."""

MESSAGE_LIMIT = 256 * 1024
"""Bytes of one WebSocket message."""

_PING_EVERY_S = 20
"""Below the shortest idle limit of common proxies."""

LIFELINE_VARIABLE = "FLEET_LIFELINE_FD"
"""Names the file descriptor whose end of file tells a child that its supervisor has died."""


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


def serve(make_app: Callable[[asyncio.Event], ASGIApp], *, host: str, port: int, shutdown_timeout_s: int) -> None:
    """Bind, build the application and serve it until SIGTERM, SIGINT or the supervisor's death.

    Listening sockets that systemd hands over are used in place of one of our own, and stay open when the process ends.
    systemd is told when the application is ready and when it begins to end.
    Requests in flight at the end get `shutdown_timeout_s` to finish. The event that `make_app` is given is set when
    that time begins: a stream without an end of its own ends by it.
    """
    stopping = asyncio.Event()
    listeners = inherited_listeners(host) or [bind(host, port)]
    _follow_lifeline()
    _allow_many_connections()
    config = uvicorn.Config(
        make_app(stopping),
        http=BoundedHttpProtocol,
        ws=StrictSocketProtocol,
        ws_max_size=MESSAGE_LIMIT,
        ws_per_message_deflate=False,  # sound hardly shrinks
        ws_ping_interval=_PING_EVERY_S,
        ws_ping_timeout=None,  # a listener that lets sound wait is slow to answer, and not gone
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # callers are told apart by what they send, never by a header that says who they are
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=shutdown_timeout_s,
    )
    _spare_the_collector()
    _Server(config, stopping).run(sockets=listeners)


class _Server(uvicorn.Server):
    """Tells systemd when it is ready, and the application too that it is about to end, before requests in flight are
    waited for.
    """

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        notify(STOPPING=1, STATUS="ending: requests in flight finish first")
        self._stopping.set()
        await super().shutdown(sockets)


def exit_with(error: StartupError) -> None:
    """End the process with one clear line for whoever started it."""
    print(f"error: {error.message}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def _spare_the_collector() -> None:
    """What a process has loaded stays: it need not be looked through for garbage again, and a request makes little.

    With Python's own thresholds a full collection stops all streams for milliseconds.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _follow_lifeline() -> None:
    """End with the supervisor, however it ended: its end of a pipe closes even on SIGKILL."""
    descriptor = os.environ.pop(LIFELINE_VARIABLE, None)
    if descriptor is None:
        return

    def wait() -> None:
        os.read(int(descriptor), 1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


def _allow_many_connections() -> None:
    """Raise the soft limit on descriptors to the hard one: every stream takes one or two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
