"""Trace context and spans, with a real fleet and a collector that speaks OTLP."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.running import RunningBalancer, RunningWorker, free_port, wait_for

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(ThreadingHTTPServer):
    """Keeps the spans it is sent, by the service that sent them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Collect)
        self.spans: dict[str, list[Span]] = {}


class _Collect(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in sent.resource_spans:
            service = next(
                pair.value.string_value for pair in resource.resource.attributes if pair.key == "service.name"
            )
            for scope in resource.scope_spans:
                self.server.spans.setdefault(service, []).extend(scope.spans)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parent's name
        """Silent."""


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{running.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        yield running
        running.shutdown()
        thread.join()


def test_spans_of_balancer_and_worker_continue_the_callers_trace(collector: Collector) -> None:
    """The balancer's span is the child of the caller's, the worker's is the child of the balancer's."""
    with RunningWorker(free_port(0), name="gpu0") as worker, RunningBalancer(worker.url) as balancer:
        balancer.wait_ready(1)
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        body = {"input": "Traced.", "response_format": "pcm"}
        answer = httpx2.post(f"{balancer.url}/v1/audio/speech", json=body, headers=headers, trust_env=False)
        assert answer.status_code == 200

        def of(service: str) -> list[Span]:
            return [span for span in collector.spans.get(service, []) if span.name == "POST /v1/audio/speech"]

        wait_for(lambda: of("balancer") and of("gpu0"))
    (outer,), (inner,) = of("balancer"), of("gpu0")
    assert (outer.trace_id.hex(), outer.parent_span_id.hex()) == (TRACE, PARENT)
    assert (inner.trace_id.hex(), inner.parent_span_id) == (TRACE, outer.span_id)
    told = {pair.key: pair.value for pair in outer.attributes}
    assert told["http.response.status_code"].int_value == 200
    assert told["fleet.worker"].string_value == "gpu0"
    assert told["fleet.request_id"].string_value == answer.headers["x-request-id"]


def test_endpoint_without_the_packages_stops_the_start() -> None:
    """With one line that says what is missing."""
    hidden = "import sys; sys.modules['opentelemetry'] = None; import balancer.__main__ as b; b.main()"
    environment = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "BALANCER_PORT": str(free_port(0)),
    }
    ended = subprocess.run(
        [sys.executable, "-c", hidden], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, "it is the extra `otel`" in ended.stderr) == (1, True), ended.stderr
