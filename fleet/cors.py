"""CORS whose refusals are answered as every other one here."""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from fleet.asgi import error_response, request_id_of
from fleet.contract import REQUEST_ID_HEADER
from fleet.errors import BadRequest, FleetError, OriginNotAllowed
from fleet.headers import header


def refused_origin(origin: str) -> OriginNotAllowed:
    """`null` is what a browser says of pages whose origin it keeps to itself."""
    named = "an origin that is not told" if origin == "null" else origin
    return OriginNotAllowed(f"pages of {named} may not use this service: its operator can allow them as a CORS origin")


class Cors(CORSMiddleware):
    """Gives every preflight a request id, and its refusal this project's error shape."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and header(scope, "origin") is None:
            # No page asks, and no cache keeps the answer, which is whom `Vary` is for (RFC 9110, 9.3.3).
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        request_id = request_id_of(request_headers.get(REQUEST_ID_HEADER))
        if response.status_code != 200:
            refusal = error_response(self._refusal(request_headers, bytes(response.body).decode()), request_id)
            told = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
            refusal.headers.update(told)
            response = refusal
        response.headers[REQUEST_ID_HEADER] = request_id
        return response

    def _refusal(self, asked: Headers, said: str) -> FleetError:
        if not self.is_allowed_origin(asked["origin"]):
            return refused_origin(asked["origin"])
        return BadRequest(f"this preflight cannot be granted: {said}")

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            fields = [field.strip() for line in headers.getlist("vary") for field in line.split(",")]
            del headers["vary"]  # a worker behind a balancer has said Origin already, and it is said again
            if others := [field for field in fields if field.lower() != "origin"]:
                headers["vary"] = ", ".join(others)
        await super().send(message, send, request_headers)
