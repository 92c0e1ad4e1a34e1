"""API keys: read from a file, compared by their hashes, each with a rate and a number of requests at once."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from fleet.errors import RateLimited
from fleet.startup_errors import InvalidSettings

CREDENTIAL = "api-keys"
"""The name systemd's `LoadCredential=` gives the file."""

_KEY = re.compile(r"[A-Za-z0-9._~+-]{16,256}")
"""What both a bearer token (RFC 6750) and a WebSocket's subprotocol may hold, and nobody guesses."""

_ADMINISTRATOR = "admin"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_BUSY_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Key:
    """A caller's key: what logs call it, the SHA-256 of it, and whether its holder may change the fleet itself."""

    name: str
    digest: bytes
    administrates: bool = False


class Keys:
    """The keys that a process knows."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)

    def find(self, presented: str) -> Key | None:
        """The key that was presented; the time it takes tells nothing of how near a wrong one was."""
        digest = hashlib.sha256(presented.encode(errors="replace")).digest()
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def read_keys(path: Path) -> Keys:
    """The keys of a file: one a line, `KEY`, `NAME KEY` or `NAME KEY admin`, where `sha256:HEX` may stand for a key;
    `#` begins a remark.

    Raises `InvalidSettings`, which never quotes a key.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the file of API keys {path} cannot be read: {error}") from None
    keys: list[Key] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}, line {number}"
        administrates = len(words) == 3 and words[2] == _ADMINISTRATOR
        if len(words) > 2 and not administrates:
            raise InvalidSettings(f"{where}: more than a name and a key, and perhaps the word {_ADMINISTRATOR}")
        named = len(words) > 1
        key = Key(words[0] if named else f"key-{number}", _digest(words[named], where), administrates)
        if not _NAME.fullmatch(key.name):
            raise InvalidSettings(f"{where}: a name is made of at most 64 letters, digits, '.', '_' and '-'")
        if any(key.name == other.name or key.digest == other.digest for other in keys):
            raise InvalidSettings(f"{where}: this name or this key stands there twice")
        keys.append(key)
    if not keys:
        raise InvalidSettings(f"the file of API keys {path} holds none")
    return Keys(keys)


def _digest(word: str, where: str) -> bytes:
    if hashed := _DIGEST.fullmatch(word):
        return bytes.fromhex(hashed[1])
    if not _KEY.fullmatch(word):
        raise InvalidSettings(f"{where}: a key is made of 16 to 256 letters, digits, '.', '_', '~', '+' and '-'")
    return hashlib.sha256(word.encode()).digest()


def credential_path() -> Path | None:
    """The file of keys that systemd has handed to this process, if it has."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    path = None if directory is None else Path(directory) / CREDENTIAL
    return path if path is not None and path.is_file() else None


def parse_rate(rate: str) -> list[RateLimitItem]:
    """`60/minute`, or several: `10/second; 1000/day`. Raises `ValueError`."""
    return parse_many(rate)


class KeyLimits:
    """What each key may ask for: so many requests in a time, and so many at once; 0 is any number. For one thread."""

    def __init__(self, rate: str | None, concurrency: int) -> None:
        self._rates = [] if rate is None else parse_rate(rate)
        self._concurrency = concurrency
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._running: Counter[str] = Counter()

    @contextmanager
    def spending(self, key: Key) -> Iterator[None]:
        """One request of this key, for as long as it runs. Raises `RateLimited`."""
        if self._concurrency and self._running[key.name] >= self._concurrency:
            message = f"this key may have {self._concurrency} requests at once"
            raise RateLimited(message, retry_after=_BUSY_RETRY_S)
        for rate in self._rates:
            if not self._limiter.test(rate, key.name):
                reset_at = self._limiter.get_window_stats(rate, key.name).reset_time
                message = f"this key may have {rate.amount} requests in {rate.get_expiry()} s"
                raise RateLimited(message, retry_after=max(1.0, reset_at - time.time()))
        for rate in self._rates:
            self._limiter.hit(rate, key.name)
        self._running[key.name] += 1
        try:
            yield
        finally:
            self._running[key.name] -= 1
