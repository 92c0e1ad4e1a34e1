"""Every kind of error there is, and an error answer read back into the one it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet.errors import FleetError, UpstreamFailed


def leaves(root: type[FleetError] = FleetError) -> Iterator[type[FleetError]]:
    """Every error class that has no subclass of its own."""
    children = root.__subclasses__()
    if not children:
        yield root
    for child in children:
        yield from leaves(child)


def from_response(status: int, body: object) -> FleetError:
    """The error a response stands for, typed again on the client's side.

    Falls back to `UpstreamFailed` when the body is not ours (a proxy's own error page, for one).
    """
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return UpstreamFailed(f"the server answered {status} without saying why")
    message, param = str(error.get("message", "")), error.get("param")
    for kind in leaves():
        if kind.code == error.get("code") and kind.status == status:
            return kind(message, param=param if isinstance(param, str) else None)
    return UpstreamFailed(f"the server answered {status}: {message}")
