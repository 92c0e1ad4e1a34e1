"""What a process tells systemd of itself, as sd_notify(3) has it; without systemd nothing is told."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog

log = structlog.get_logger()

SOCKET_VARIABLE = "NOTIFY_SOCKET"
_STATUS_EVERY_S = 1.0
_BEATS = 4
"""Signs of life in each period of the watchdog: systemd asks for two."""


def notify(**fields: str | int) -> None:
    """Send fields such as `READY=1` to whoever supervises this process; no-op where nobody asked for them."""
    address = os.environ.get(SOCKET_VARIABLE)
    if not address:
        return
    if address.startswith("@"):  # an abstract name
        address = "\0" + address[1:]
    message = "\n".join(f"{name}={value}" for name, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)  # a supervisor that does not read must not stop the event loop
            sender.sendto(message.encode(), address)
    except OSError as error:
        log.warning("notify_failed", error=str(error))


def ready() -> None:
    notify(READY=1, MAINPID=os.getpid())


@contextmanager
def reloading() -> Iterator[None]:
    """Tells that settings are being read again, and when that is done."""
    notify(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)
    try:
        yield
    finally:
        notify(READY=1)


def watchdog_s() -> float | None:
    """The seconds within which systemd wants a sign of life, if it does."""
    for_pid = os.environ.get("WATCHDOG_PID")
    period_us = os.environ.get("WATCHDOG_USEC", "")
    if not period_us.isdecimal() or int(period_us) == 0 or (for_pid and for_pid != str(os.getpid())):
        return None
    return int(period_us) / 1e6


@asynccontextmanager
async def told(status: Callable[[], str], *, alive: Callable[[], bool] = lambda: True) -> AsyncIterator[None]:
    """While entered, tells a changed `status` within a second, and feeds the watchdog for as long as `alive` says so.

    Both come from the event loop: one that hangs tells nothing.
    """
    if not os.environ.get(SOCKET_VARIABLE):
        yield
        return
    task = asyncio.create_task(_tell(status, alive), name="notify")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _tell(status: Callable[[], str], alive: Callable[[], bool]) -> None:
    period_s = watchdog_s()
    pause_s = min(_STATUS_EVERY_S, _STATUS_EVERY_S if period_s is None else period_s / _BEATS)
    last = None
    while True:
        fields: dict[str, str | int] = {}
        try:
            if period_s is not None and alive():
                fields["WATCHDOG"] = 1
            if (text := " ".join(status().split())) != last:
                fields["STATUS"] = last = text
        except Exception:  # A sentence that cannot be told is worth neither the watchdog's beat nor the process.
            log.exception("status_crashed")
        if fields:
            notify(**fields)
        await asyncio.sleep(pause_s)
