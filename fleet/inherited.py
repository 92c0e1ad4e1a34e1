"""Listening sockets that a supervisor has opened for this process, as sd_listen_fds(3) has it."""

from __future__ import annotations

import ipaddress
import os
import socket

from fleet.startup_errors import InvalidSettings

FIRST_DESCRIPTOR = 3


def inherited_listeners(host: str) -> list[socket.socket]:
    """The sockets that `LISTEN_FDS` and `LISTEN_PID` speak of; none without them, or where they are another's.

    Raises `InvalidSettings` for what does not listen, and for an address beyond loopback where `host`, by which it was
    decided who may ask, is not.
    """
    for_pid, count = os.environ.pop("LISTEN_PID", None), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if for_pid != str(os.getpid()) or not count.isdecimal():
        return []
    return [_listener(descriptor, host) for descriptor in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))]


def _listener(descriptor: int, host: str) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise InvalidSettings(f"descriptor {descriptor} of LISTEN_FDS is no socket: {error.strerror}") from None
    if not listens or listener.type != socket.SOCK_STREAM:
        raise InvalidSettings(f"descriptor {descriptor} of LISTEN_FDS does not listen for connections")
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        address = listener.getsockname()[0]
        if _is_local(host) and not _is_local(address):
            raise InvalidSettings(
                f"the socket that systemd opened listens on {address}, but the settings say {host}: set both alike"
            )
    listener.setblocking(False)
    return listener


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"
