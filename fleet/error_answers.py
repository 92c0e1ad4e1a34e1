"""Every kind of error there is, and an error answer read back into the one it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fleet import startup_errors as _startup_errors  # noqa: F401 - so that its kinds are among the leaves
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
    told = _told(error)
    return told if told is not None and told.status == status else _unknown(error, f"the server answered {status}")


def from_message(body: Mapping[str, object]) -> FleetError:
    """The error that an `error` message of a WebSocket stands for."""
    error = body.get("error")
    if not isinstance(error, Mapping):
        return UpstreamFailed("the server failed without saying why")
    return _told(error) or _unknown(error, "the server failed")


def _told(error: Mapping[str, object]) -> FleetError | None:
    param = error.get("param")
    for kind in leaves():
        if kind.code == error.get("code"):
            return kind(str(error.get("message", "")), param=param if isinstance(param, str) else None)
    return None


def _unknown(error: Mapping[str, object], what: str) -> FleetError:
    return UpstreamFailed(f"{what}: {error.get('message', '')}")
