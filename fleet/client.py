"""A typed client of the fleet's HTTP API, for the command line and for scripts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from fleet.contract import FleetStats, WorkerHealth, WorkerState
from fleet.error_answers import from_response
from fleet.errors import Unreachable, UpstreamFailed
from fleet.speech_contract import SynthesisRequest

M = TypeVar("M", bound=BaseModel)

DEFAULT_URL = "http://127.0.0.1:6095"
URL_VARIABLE, KEY_VARIABLE = "FLEET_URL", "FLEET_API_KEY"

_CONNECT_TIMEOUT_S, _SILENCE_TIMEOUT_S = 3.0, 120.0


@dataclass(frozen=True, slots=True)
class Speech:
    """Sound on its way: its encoded pieces, and the answer's headers by lower-case name."""

    pieces: Iterator[bytes]
    headers: dict[str, str]


class FleetClient:
    """One fleet at one address: `url`, else `FLEET_URL`, else this machine's default; its key is `FLEET_API_KEY`.

    Every method raises `Unreachable` when nothing answers there, and the typed error an error answer stands for.
    """

    def __init__(self, url: str | None = None) -> None:
        address = (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        self.url = address if "://" in address else f"http://{address}"
        timeout = httpx2.Timeout(_SILENCE_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
        key = os.environ.get(KEY_VARIABLE)
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._client = httpx2.Client(timeout=timeout, trust_env=False, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def speak(self, request: SynthesisRequest) -> Iterator[Speech]:
        """The request's sound while it arrives. Raises `UpstreamFailed` when it breaks off."""
        body = request.model_dump(mode="json", exclude_none=True)
        with self._reaching(), self._client.stream("POST", f"{self.url}/synthesize", json=body) as answer:
            require_success(answer)
            yield Speech(answer.iter_raw(), dict(answer.headers))

    def stats(self) -> FleetStats:
        return self._get("/stats", FleetStats)

    def worker_health(self) -> WorkerHealth:
        """Of the worker whose address this is."""
        return self._get("/health", WorkerHealth)

    def drain(self, worker: str) -> WorkerState:
        """Give a worker no new requests. Raises `WorkerNotFound`, or `NotAdministrator`."""
        return self._administer(worker, "drain")

    def resume(self, worker: str) -> WorkerState:
        """Give a drained worker requests again. Raises as `drain` does."""
        return self._administer(worker, "resume")

    def _administer(self, worker: str, action: str) -> WorkerState:
        name = quote(worker.partition("://")[2] or worker, safe="")
        return self._send("POST", f"/workers/{name}/{action}", WorkerState)

    def _get(self, path: str, model: type[M], **parameters: str | int) -> M:
        return self._send("GET", path, model, params=parameters)

    def _send(self, method: str, path: str, model: type[M], **request: Any) -> M:
        """`request` is what httpx2 takes."""
        with self._reaching():
            answer = self._client.request(method, self.url + path, **request)
            require_success(answer)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError:
            raise UpstreamFailed(f"{self.url} answers, but not as a fleet's balancer does") from None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise Unreachable(f"nothing answers at {self.url}; is the fleet up?") from None
        except httpx2.HTTPError as error:
            raise UpstreamFailed(f"the connection to {self.url} broke off: {error}") from None
        except httpx2.InvalidURL as error:
            raise Unreachable(f"{self.url!r} is not an address: {error}") from None


def require_success(answer: httpx2.Response) -> None:
    if answer.is_success:
        return
    answer.read()
    try:
        body: object = answer.json()
    except ValueError:
        body = None
    raise from_response(answer.status_code, body)
