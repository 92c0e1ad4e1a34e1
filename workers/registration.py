"""A worker that tells balancers where it is, again and again, and takes its leave at the end."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import structlog

from fleet.startup_errors import InvalidSettings
from fleet.worker_urls import checked_url

log = structlog.get_logger()

_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Registration:
    """Where this worker is, and for whom to know. Without `balancers` there is nothing to do."""

    balancers: tuple[str, ...]
    url: str
    key: str | None
    lease_s: float

    @staticmethod
    def of(
        balancers: str | None,
        *,
        advertised_url: str | None,
        host: str,
        port: int,
        key_file: Path | None,
        lease_s: float,
    ) -> Registration:
        """Raises `InvalidSettings` that names what is wrong."""
        try:
            addresses = tuple(checked_url(word) for word in (balancers or "").split(",") if word.strip())
            url = checked_url(advertised_url or f"http://{f'[{host}]' if ':' in host else host}:{port}")
        except ValueError as error:
            raise InvalidSettings(f"registration with balancers: {error}") from None
        if addresses and advertised_url is None and _is_wildcard(host):
            raise InvalidSettings(f"{host} is no address for others: CHATTERBOX_ADVERTISED_URL must say where this is")
        return Registration(addresses, url, None if key_file is None else _key(key_file), lease_s)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Registered with every balancer that can be reached, while the context lasts."""
        headers = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        async with httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, headers=headers) as client:
            tasks = [asyncio.create_task(self._keep(client, balancer)) for balancer in self.balancers]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.gather(*(self._leave(client, balancer) for balancer in self.balancers))

    async def _keep(self, client: httpx2.AsyncClient, balancer: str) -> None:
        told = None
        while True:
            said = await self._register(client, balancer)
            if said != told:
                log.info("registration", balancer=balancer, url=self.url, said=said)
                told = said
            await asyncio.sleep(self.lease_s / 3)

    async def _register(self, client: httpx2.AsyncClient, balancer: str) -> str:
        try:
            answer = await client.post(f"{balancer}/workers", json={"url": self.url, "lease_s": self.lease_s})
        except httpx2.HTTPError as error:
            return f"failed: {str(error) or type(error).__name__}"
        return "registered" if answer.is_success else f"refused with {answer.status_code}: {answer.text[:300]}"

    async def _leave(self, client: httpx2.AsyncClient, balancer: str) -> None:
        try:
            await client.delete(f"{balancer}/workers/{urlsplit(self.url).netloc}")
        except httpx2.HTTPError as error:  # its lease will end
            log.info("deregistration_failed", balancer=balancer, error=str(error) or type(error).__name__)


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def _key(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the balancers' key {path} cannot be read: {error}") from None
