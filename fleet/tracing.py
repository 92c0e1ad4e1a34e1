"""Spans for OpenTelemetry, where its packages are installed and an endpoint is named; else nothing of it runs.

The standard's own variables say where spans go: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_HEADERS`,
`OTEL_TRACES_SAMPLER` and the others of the OpenTelemetry specification.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.startup_errors import InvalidSettings

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACEPARENT = b"traceparent"


def traced(app: ASGIApp, *, service: str) -> ASGIApp:
    """The application with a span for each request, exported by OTLP over HTTP.

    Raises `InvalidSettings` when an endpoint is named and the packages are not installed.
    """
    if not os.environ.get(ENDPOINT_VARIABLE):
        return app
    try:
        tracer = _tracer(service)
    except ModuleNotFoundError:
        message = f"{ENDPOINT_VARIABLE} is set, but OpenTelemetry is not installed: it is the extra `otel`"
        raise InvalidSettings(message) from None
    return _Tracing(app, tracer)


def _tracer(service: str) -> Tracer:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - optional
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - optional
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - optional

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer("chatterbox-fleet")


class _Tracing:
    """A span for each request, the child of the caller's; what is asked further on is told of it in its place."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 - optional

        self.app = app
        self._tracer, self._propagator = tracer, tracecontext.TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, set_span_in_context  # noqa: PLC0415 - optional

        told = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        method = scope.get("method", "WEBSOCKET")
        span = self._tracer.start_span(
            f"{method} {scope['path'][:100]}", context=self._propagator.extract(told), kind=SpanKind.SERVER
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=set_span_in_context(span))
        mine = [(name.encode(), value.encode()) for name, value in carrier.items()]
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in (_TRACEPARENT, b"tracestate")] + mine

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        finally:
            self._describe(span, scope, method)
            span.end()

    def _describe(self, span: Span, scope: Scope, method: str) -> None:
        span.set_attribute("http.request.method", method)
        span.set_attribute("url.path", scope["path"])
        state = scope.get("state", {})
        for name, value in {"request_id": state.get("request_id"), **state.get("log", {})}.items():
            if isinstance(value, str | int | float):
                span.set_attribute(f"fleet.{name}", value)
