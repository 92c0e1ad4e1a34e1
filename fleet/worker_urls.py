"""Addresses of workers, as settings and registrations give them."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORTS = {"http": 80, "https": 443}


def checked_url(value: str) -> str:
    """An `http://HOST[:PORT]`, or `https`, as it is kept. Raises `ValueError` with what is wrong."""
    try:
        parts = urlsplit(value.strip())
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{value} is no address: {error}") from None
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{value} must be http://HOST:PORT")
    if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment or not value.isascii():
        raise ValueError(f"{value} must be http://HOST:PORT and nothing more")
    if any(not character.isprintable() or character in ' \\"<>^`{|}' for character in parts.netloc):
        raise ValueError(f"{value} holds a character that no host has")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}:{port or _PORTS[parts.scheme]}"
