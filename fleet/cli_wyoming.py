"""`fleet wyoming`: the fleet as a voice of Home Assistant."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from functools import partial
from typing import Annotated
from urllib.parse import urlsplit

import typer
from wyoming.server import AsyncServer

from fleet.client import DEFAULT_URL, KEY_VARIABLE, URL_VARIABLE
from fleet.logs import configure_logging
from fleet.startup_errors import InvalidSettings, PortInUse, StartupError
from fleet.telling import errors_told, tell
from fleet.wyoming_fleet import Fleet
from fleet.wyoming_server import Handler


def wyoming(
    uri: Annotated[str, typer.Option(help="tcp://HOST:PORT or unix://PATH.")] = "tcp://0.0.0.0:10200",
    announce: Annotated[bool, typer.Option(help="Tell Home Assistant by mDNS where we are.")] = True,
    name: Annotated[str, typer.Option(help="What it is called there.")] = "chatterbox-fleet",
) -> None:
    """Serve Home Assistant's Wyoming protocol until Ctrl-C; the fleet is at FLEET_URL, its key in FLEET_API_KEY."""
    configure_logging("info", process="wyoming")
    served = Fleet(os.environ.get(URL_VARIABLE, DEFAULT_URL).rstrip("/"), os.environ.get(KEY_VARIABLE) or None)
    with errors_told():
        try:
            asyncio.run(_serve(uri, served, name if announce else None))
        except KeyboardInterrupt:
            tell("stopped")


async def _serve(uri: str, served: Fleet, name: str | None) -> None:
    parts = urlsplit(uri)
    try:
        server = AsyncServer.from_uri(uri)
        port = parts.port
    except ValueError as error:
        raise InvalidSettings(f"--uri {uri}: {error}", param="uri") from None
    if parts.scheme not in {"tcp", "unix"}:
        raise InvalidSettings(f"--uri {uri}: it must be tcp://HOST:PORT or unix://PATH", param="uri")
    try:
        await server.start(partial(Handler, served=served))
    except OSError as error:
        kind = PortInUse if error.errno == errno.EADDRINUSE else StartupError
        raise kind(f"cannot listen at {uri}: {error.strerror}") from None
    try:
        if name is not None and port is not None:
            await _announce(name, port, parts.hostname)
        tell(f"speaking Wyoming at {uri} for {served.url}")
        await _told_to_stop()
    finally:
        await server.stop()


async def _told_to_stop() -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    await stopping.wait()


async def _announce(name: str, port: int, host: str | None) -> None:
    """A network without multicast is no reason not to serve."""
    from wyoming.zeroconf import HomeAssistantZeroconf  # noqa: PLC0415 - slow to import, and only needed here

    try:
        address = host if host not in {"0.0.0.0", "::", None} else None  # noqa: S104 - compared with, not listened at
        await HomeAssistantZeroconf(port, name=name, host=address).register_server()
    except OSError as error:
        tell(f"not announced by mDNS: {error}")
