"""Who may ask: keys, the origins of web pages, and what each key may spend. Pure ASGI, inside the edge."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.contract import REQUEST_ID_HEADER
from fleet.cors import Cors, refused_origin
from fleet.errors import NotAdministrator, Unauthorized
from fleet.headers import header
from fleet.keys import Key, KeyLimits, Keys, credential_path, read_keys
from fleet.routes import is_administration, is_speech, needs_no_key
from fleet.settings import ServingSettings
from fleet.startup_errors import InvalidSettings

LOOPBACK = "loopback"
"""Among the origins: every page served by this machine to itself, from whatever port."""

SUBPROTOCOL = "chatterbox"
_KEY_SUBPROTOCOL = "bearer."
"""How a page, which can give a WebSocket no header, presents its key: as a second subprotocol."""

_LOOPBACK_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
_LAST_MESSAGES = ("http.response.body", "websocket.close")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_TOLD = ("engine", "voice", "emotion", "language", "seed", "worker", "ignored-parameters")


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins whose pages may use this service."""

    everywhere: bool
    listed: tuple[str, ...]
    pattern: str | None

    @staticmethod
    def of(setting: str) -> Origins:
        """Origins separated by commas; `*` is all of them, `loopback` those of this machine."""
        words = tuple(word.strip().rstrip("/") for word in setting.split(",") if word.strip())
        listed = tuple(word for word in words if word not in ("*", LOOPBACK))
        return Origins("*" in words, listed, _LOOPBACK_ORIGIN if LOOPBACK in words else None)

    def allow(self, origin: str) -> bool:
        return (
            self.everywhere
            or origin in self.listed
            or (self.pattern is not None and re.fullmatch(self.pattern, origin) is not None)
        )

    def answering(self, app: ASGIApp) -> ASGIApp:
        """CORS in front of an application. Credentials are never allowed: a key is sent in a header, not a cookie."""
        return Cors(
            app,
            allow_origins=["*"] if self.everywhere else self.listed,
            allow_origin_regex=self.pattern,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=[REQUEST_ID_HEADER, "etag", "retry-after", *(f"x-{name}" for name in _TOLD)],
        )


@dataclass(frozen=True, slots=True)
class Access:
    """What a process knows of its callers; without `keys` everybody is welcome."""

    keys: Keys | None
    origins: Origins
    limits: KeyLimits = field(default_factory=lambda: KeyLimits(None, 0))

    @staticmethod
    def of(settings: ServingSettings) -> Access:
        """Raises `InvalidSettings` for a service that all the world could use without a key, unless that is wanted."""
        path = settings.api_keys or credential_path()
        if path is None and not settings.open_access and not _is_loopback(settings.host):
            raise InvalidSettings(
                f"{settings.host} can be reached from other machines: name a file of keys with "
                f"{settings.variable('api_keys')}, or let everybody in with {settings.variable('open_access')}=true"
            )
        if path is None and (settings.key_rate is not None or settings.key_concurrency):
            named = settings.variable("key_rate" if settings.key_rate is not None else "key_concurrency")
            raise InvalidSettings(f"{named} limits each key, but there are none: {settings.variable('api_keys')}")
        return Access(
            keys=None if path is None else read_keys(path),
            origins=Origins.of(settings.cors_origins),
            limits=KeyLimits(settings.key_rate, settings.key_concurrency),
        )


def _is_loopback(host: str) -> bool:
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in addresses)


class Guard:
    """Lets those through who may ask; the others' `FleetError` is for the edge around it."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        key = self._key(scope)
        if key is None:
            self._check_origin(scope)
        else:
            scope["state"]["key"] = key.name
        if is_administration(scope):
            self._check_administrator(scope, key)
        # Judged here: a worker behind a balancer is not told the origin, and must not judge by half of it.
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"sec-fetch-site"]
        if key is None or not is_speech(scope):
            await self.app(scope, receive, send)
            return
        with ExitStack() as spending:
            spending.enter_context(self._access.limits.spending(key))

            async def send_and_release(message: Message) -> None:
                # Before the caller can know that this request is over, and send its next.
                if message["type"] in _LAST_MESSAGES and not message.get("more_body", False):
                    spending.close()
                await send(message)

            await self.app(scope, receive, send_and_release)

    def _key(self, scope: Scope) -> Key | None:
        """The caller's key, None where none is wanted. Raises `Unauthorized`."""
        if self._access.keys is None or needs_no_key(scope):
            return None
        presented = _presented(scope)
        if presented is None:
            raise Unauthorized("an API key is needed: send it as Authorization: Bearer KEY")
        key = self._access.keys.find(presented)
        if key is None:
            raise Unauthorized("this API key is not known")
        return key

    def _check_administrator(self, scope: Scope, key: Key | None) -> None:
        """Where there are keys, it takes one that administrates; else the caller must be on this machine."""
        if key is not None:
            if not key.administrates:
                raise NotAdministrator(f"the key {key.name} may not change the fleet: its line lacks the word admin")
            return
        client = scope.get("client")
        elsewhere = client is None or not ipaddress.ip_address(client[0]).is_loopback
        if elsewhere or not _is_own_page_or_none(scope):
            raise NotAdministrator("without keys the fleet is changed from its own machine only")

    def _check_origin(self, scope: Scope) -> None:
        """Without a key, any page in the caller's browser could change things here, or listen: CORS alone stops
        neither a form nor a WebSocket.
        """
        origin = _origin(scope)
        harmless = not is_speech(scope) and scope["method"] in _SAFE_METHODS
        if origin is None or harmless:
            return
        if origin.partition("://")[2] != header(scope, "host") and not self._access.origins.allow(origin):
            raise refused_origin(origin)


def _origin(scope: Scope) -> str | None:
    """Whose page asks, None for a caller that is none, `null` for one that is not told.

    An element of a page that plays sound sends no `Origin`, but browsers say whether the page is of another site
    wherever the address is a trustworthy one, as this machine's is (Fetch Metadata).
    """
    origin = header(scope, "origin")
    if origin is not None or header(scope, "sec-fetch-site") != "cross-site":
        return origin
    referer = header(scope, "referer")
    return "null" if referer is None else "/".join(referer.split("/")[:3])


def _is_own_page_or_none(scope: Scope) -> bool:
    """Whether no page asks, or one that this very address has served, under a name that cannot be bound to another."""
    origin = header(scope, "origin")
    if origin is None:
        return True
    same = origin.partition("://")[2] == header(scope, "host")
    return same and re.fullmatch(_LOOPBACK_ORIGIN, origin) is not None


def _presented(scope: Scope) -> str | None:
    scheme, _, token = (header(scope, "authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for offered in scope.get("subprotocols", ()):
        if offered.startswith(_KEY_SUBPROTOCOL):
            return str(offered.removeprefix(_KEY_SUBPROTOCOL))
    return None
