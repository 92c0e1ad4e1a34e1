"""What administrators do with the pool: take workers in and out, drain them, resume them."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any

import aiohttp
from pydantic import Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from balancer.members import Members
from balancer.pool import WorkerPool
from balancer.upstream import describe
from balancer.worker import Worker
from fleet.contract import Drain, WorkerState
from fleet.error_answers import from_response
from fleet.errors import InvalidJson, InvalidValue, MethodNotAllowed, RouteNotFound, UpstreamFailed, WorkerNotFound
from fleet.fields import Frozen, Number
from fleet.routes import DRAIN_PATH
from fleet.worker_urls import checked_url

_ROUTE = re.compile(r"/workers(?:/(?P<worker>[^/]+)(?:/(?P<action>drain|resume))?)?")
_TIMEOUT_S = 5.0


class Registration(Frozen):
    """`POST /workers`. Sent again before `lease_s` seconds are over it renews the lease."""

    url: Annotated[str, Field(max_length=300)]
    lease_s: Annotated[Number, Field(ge=1, le=3600)] = 30.0


class Administration:
    """The ASGI endpoint of `/workers`. Whoever reaches it may administrate."""

    def __init__(self, pool: WorkerPool, members: Members) -> None:
        self._pool, self._members = pool, members

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = _ROUTE.fullmatch(scope["path"])
        if route is None:
            raise RouteNotFound(f"there is nothing at {scope['path']}")
        request = Request(scope, receive)
        match scope["method"], route["worker"], route["action"]:
            case "POST", None, None:
                response = self._register(await _registration(request))
            case "DELETE", str(name), None:
                self._members.deregister(name)
                response = Response(status_code=204)
            case "POST", str(name), "drain" | "resume" as action:
                response = await self._drain(self._find(name), request, draining=action == "drain")
            case _:
                allowed = "POST" if route["worker"] is None or route["action"] else "DELETE"
                message = f"{scope['path']} does not take {scope['method']}"
                raise MethodNotAllowed(message).with_header("allow", allowed)
        await response(scope, receive, send)

    def _find(self, name: str) -> Worker:
        worker = self._pool.find(name)
        if worker is None:
            known = ", ".join(worker.name for worker in self._pool.workers)
            raise WorkerNotFound(f"there is no worker {name!r}; there are: {known}", param="worker")
        return worker

    def _register(self, asked: Registration) -> Response:
        new = self._members.register(asked.url, asked.lease_s)
        worker = self._find(asked.url)
        return JSONResponse(_told(worker, lease_s=asked.lease_s), status_code=201 if new else 200)

    async def _drain(self, worker: Worker, request: Request, *, draining: bool) -> Response:
        """The worker is told, so that it refuses its probes and every other balancer learns of it too."""
        authorization = request.headers.get("authorization")
        headers = {} if authorization is None else {"authorization": authorization}
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as client,
                client.put(worker.url + DRAIN_PATH, json=Drain(draining=draining).model_dump()) as answer,
            ):
                if answer.status != 200:
                    raise from_response(answer.status, _json(await answer.read()))
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise UpstreamFailed(f"{worker.name} cannot be told: {describe(error)}") from error
        if draining:
            worker.drain("an administrator drains it")
        else:
            worker.resume()
        return JSONResponse(_told(worker))


def _told(worker: Worker, lease_s: float | None = None) -> dict[str, Any]:
    return WorkerState(
        name=worker.name,
        url=worker.url,
        state=worker.state.value,
        reason=worker.reason,
        in_flight=worker.in_flight,
        lease_s=lease_s,
    ).model_dump()


async def _registration(request: Request) -> Registration:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError) as error:
        raise InvalidJson(f"the body is not JSON: {error}") from None
    try:
        asked = Registration.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        param = str(first["loc"][0]) if first["loc"] else None
        raise InvalidValue(first["msg"], param=param) from None
    try:
        return asked.model_copy(update={"url": checked_url(asked.url)})
    except ValueError as error:
        raise InvalidValue(str(error), param="url") from None


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
