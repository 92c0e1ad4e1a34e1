"""Where the pool's workers come from: the settings, a file that is read again on SIGHUP, a DNS name, registrations."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from balancer.pool import WorkerPool
from balancer.worker import Clock, Worker
from fleet.errors import Overloaded, WorkerFixed, WorkerNotFound
from fleet.startup_errors import InvalidSettings
from fleet.worker_urls import checked_url

log = structlog.get_logger()

SETTINGS, REGISTERED, GONE = "settings", "registered", "gone"
DNS_SCHEME = "dns://"

_MOST_REGISTERED = 256
_LOOK_EVERY_S = 0.5

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Addresses of a host."""


@dataclass(frozen=True, slots=True)
class Named:
    """Words of `BALANCER_WORKERS` or of the file: addresses, and names (`dns://HOST:PORT`) that stand for several."""

    urls: tuple[str, ...]
    names: tuple[str, ...]

    @staticmethod
    def of(words: list[str]) -> Named:
        """Raises `ValueError` that names the word that is none."""
        urls = tuple(checked_url(word) for word in words if not word.startswith(DNS_SCHEME))
        names = tuple(word for word in words if word.startswith(DNS_SCHEME))
        for name in names:
            _host_and_port(name)
        if len({*urls, *names}) != len(words):
            raise ValueError("names a worker twice")
        return Named(urls, names)


def read_file(path: Path) -> list[str]:
    """A worker a line; `#` begins a remark. Raises `InvalidSettings`."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the file of workers {path} cannot be read: {error}") from None
    words = [word for line in lines if (word := line.partition("#")[0].strip())]
    try:
        Named.of(words)
    except ValueError as error:
        raise InvalidSettings(f"the file of workers {path}: {error}") from None
    return words


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, by the system's resolver. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[4][0]) for address in found})


class Members:
    """Keeps a pool's workers as their sources say, while its context is entered."""

    def __init__(
        self,
        pool: WorkerPool,
        words: list[str],
        *,
        file: Path | None,
        dns_interval_s: float,
        clock: Clock = time.monotonic,
        resolver: Resolve = resolve,
    ) -> None:
        self._pool, self._words, self._file = pool, words, file
        self._dns_interval_s, self._clock, self._resolver = dns_interval_s, clock, resolver
        self._look_every_s = min(_LOOK_EVERY_S, dns_interval_s)
        self._names: tuple[str, ...] = ()
        self._leases: dict[str, float] = {}
        self._resolve_at = 0.0
        self._take(words if file is None else read_file(file))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = {asyncio.create_task(self._look()), asyncio.create_task(self._look_up())}
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def source_of(self, worker: Worker) -> str:
        for source in (SETTINGS, *self._names, REGISTERED):
            if worker.url in self._pool.named_by(source):
                return source
        return GONE

    def reload(self) -> None:
        """Read the file again. One that is no good is told in the log, and the workers stay as they are."""
        if self._file is None:
            log.info("nothing_to_reload", reason="there is no file of workers")
            return
        try:
            self._take(read_file(self._file))
        except InvalidSettings as error:
            log.error("reload_failed", reason=error.message)  # noqa: TRY400 - the message says it all
        else:
            log.info("reloaded", workers=[worker.url for worker in self._pool.workers])

    def _take(self, words: list[str]) -> None:
        named = Named.of(words)
        for gone in set(self._names) - set(named.names):
            self._pool.sync(gone, ())
        self._names, self._resolve_at = named.names, 0.0
        self._pool.sync(SETTINGS, named.urls)

    def register(self, url: str, lease_s: float) -> bool:
        """Add a worker, or renew its lease; whether it is new. Raises `Overloaded` when there are too many."""
        new = url not in self._leases
        if new and len(self._leases) >= _MOST_REGISTERED:
            raise Overloaded(f"{_MOST_REGISTERED} workers are registered already", retry_after=lease_s)
        self._leases[url] = self._clock() + lease_s
        if new:
            self._pool.sync(REGISTERED, tuple(self._leases))
        return new

    def deregister(self, name: str) -> None:
        """End a worker's lease. Raises `WorkerNotFound`, or `WorkerFixed` for one that did not register."""
        worker = self._pool.find(name)
        if worker is None:
            raise WorkerNotFound(f"there is no worker {name!r}", param="worker")
        if worker.url not in self._leases:
            raise WorkerFixed(f"{name} comes from {self.source_of(worker)}, and goes when it is taken out there")
        del self._leases[worker.url]
        self._pool.sync(REGISTERED, tuple(self._leases))

    async def _look(self) -> None:
        while True:
            self._end_leases()
            self._pool.changed()  # places become free in ways that tell nobody
            await asyncio.sleep(self._look_every_s)

    async def _look_up(self) -> None:
        """Apart from the rest: a resolver may take its time."""
        while True:
            if self._names and self._clock() >= self._resolve_at:
                self._resolve_at = self._clock() + self._dns_interval_s
                for name in self._names:
                    await self._resolve(name)
            await asyncio.sleep(self._look_every_s)

    def _end_leases(self) -> None:
        over = [url for url, end in self._leases.items() if end <= self._clock()]
        for url in over:
            del self._leases[url]
            log.warning("lease_over", url=url)
        if over:
            self._pool.sync(REGISTERED, tuple(self._leases))

    async def _resolve(self, name: str) -> None:
        """A name that cannot be resolved now keeps the workers it had."""
        host, port = _host_and_port(name)
        try:
            addresses = await self._resolver(host, port)
        except (OSError, UnicodeError) as error:
            log.warning("name_not_resolved", name=name, error=str(error))
            return
        urls = [f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}" for address in addresses]
        if name in self._names and set(urls) != self._pool.named_by(name):
            self._pool.sync(name, urls)


def _host_and_port(name: str) -> tuple[str, int]:
    parts = urlsplit(name)
    if not parts.hostname or parts.port is None or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f"{name} must be dns://HOST:PORT")
    return parts.hostname, parts.port
