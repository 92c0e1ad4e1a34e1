"""Bad input over real sockets, at a worker and at the balancer: a clear 4xx at once, and the next request works."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from fleet.http_protocol import BoundedHttpProtocol
from fleet.server import bind
from tests.running import RunningFleet, RunningWorker, free_port

SPEECH = "/v1/audio/speech"
JSON = {"content-type": "application/json"}
GOOD = {"input": "fine", "response_format": "pcm"}

BAD_FIELDS = {
    "empty": ({"input": ""}, 422, "invalid_value", "input"),
    "white space": ({"input": " \n\t\u3000 "}, 422, "invalid_value", "input"),
    "number for text": ({"input": 5}, 422, "invalid_value", "input"),
    "list for text": ({"input": ["a"]}, 422, "invalid_value", "input"),
    "null text": ({"input": None}, 422, "invalid_value", "input"),
    "no text": ({"voice": "alloy"}, 422, "missing_field", "input"),
    "over-long": ({"input": "a" * 10_001}, 422, "text_too_long", "input"),
    "over-long in four-byte characters": ({"input": "\U0001f600" * 10_001}, 422, "text_too_long", "input"),
    "punctuation": ({"input": "..."}, 422, "nothing_to_speak", "input"),
    "unknown voice": ({"input": "a", "voice": "nobody"}, 404, "voice_not_found", "voice"),
    "path as voice": ({"input": "a", "voice": "../../etc/passwd\x00"}, 404, "voice_not_found", "voice"),
    "voice of the wrong type": ({"input": "a", "voice": 7}, 422, "invalid_value", "voice"),
    "empty voice": ({"input": "a", "voice": ""}, 422, "invalid_value", "voice"),
    "voice object with more": ({"input": "a", "voice": {"id": "alto", "x": 1}}, 422, "invalid_value", "voice"),
    "unknown format": ({"input": "a", "response_format": "ogg"}, 422, "invalid_value", "response_format"),
    "unknown stream format": ({"input": "a", "stream_format": "x"}, 422, "invalid_value", "stream_format"),
    "unknown model": ({"input": "a", "model": "gpt-9"}, 404, "model_not_found", "model"),
    "unknown emotion": ({"input": "a", "emotion": "furious"}, 404, "emotion_not_found", "emotion"),
    "unknown language": ({"input": "a", "language": "tlh"}, 422, "invalid_value", "language"),
    "unknown field": ({"input": "a", "volume": 11}, 422, "unknown_field", "volume"),
    "enormous field name": ({"input": "a", "x" * 5000: 1}, 422, "unknown_field", "x" * 97 + "..."),
    "speed too low": ({"input": "a", "speed": 0.2}, 422, "invalid_value", "speed"),
    "speed too high": ({"input": "a", "speed": 4.01}, 422, "invalid_value", "speed"),
    "speed as text": ({"input": "a", "speed": "1"}, 422, "invalid_value", "speed"),
    "speed as truth": ({"input": "a", "speed": True}, 422, "invalid_value", "speed"),
    "exaggeration": ({"input": "a", "exaggeration": 2.1}, 422, "invalid_value", "exaggeration"),
    "cfg weight": ({"input": "a", "cfg_weight": -0.1}, 422, "invalid_value", "cfg_weight"),
    "temperature": ({"input": "a", "temperature": -1}, 422, "invalid_value", "temperature"),
    "min_p": ({"input": "a", "min_p": 2}, 422, "invalid_value", "min_p"),
    "top_p": ({"input": "a", "top_p": 0}, 422, "invalid_value", "top_p"),
    "top_k": ({"input": "a", "top_k": -1}, 422, "invalid_value", "top_k"),
    "repetition penalty": ({"input": "a", "repetition_penalty": 0.5}, 422, "invalid_value", "repetition_penalty"),
    "unknown quality": ({"input": "a", "quality": "best"}, 422, "invalid_value", "quality"),
    "negative seed": ({"input": "a", "seed": -1}, 422, "invalid_value", "seed"),
    "huge seed": ({"input": "a", "seed": 2**63}, 422, "invalid_value", "seed"),
    "fractional seed": ({"input": "a", "seed": 1.5}, 422, "invalid_value", "seed"),
}

BAD_BODIES = {
    "broken JSON": (b'{"input": "a"', 400, "invalid_json"),
    "nothing": (b"", 400, "invalid_json"),
    "not an object": (b'["a"]', 422, "invalid_value"),
    "null": (b"null", 422, "invalid_value"),
    "invalid UTF-8": (b'{"input": "\xff\xfe"}', 400, "invalid_encoding"),
    "lone surrogate": (b'{"input": "\\ud800"}', 422, "invalid_value"),
    "lone surrogate in a name": (b'{"input": "a", "\\udfff": 1}', 422, "invalid_value"),
    "lone surrogate in a voice": (b'{"input": "a", "voice": "\\ud800"}', 422, "invalid_value"),
    "not a number": (b'{"input": "a", "speed": NaN}', 422, "invalid_value"),
    "infinity": (b'{"input": "a", "speed": 1e999}', 422, "invalid_value"),
    "a number of many digits": (b'{"input": "a", "seed": ' + b"9" * 10_000 + b"}", 400, "invalid_json"),
    "UTF-16": ('{"input": "a"}'.encode("utf-16"), 400, "invalid_encoding"),
    "UTF-16 without a mark": ('{"input": "a"}'.encode("utf-16-be"), 400, "invalid_encoding"),
    "UTF-32": ('{"input": "a"}'.encode("utf-32"), 400, "invalid_encoding"),
    "deep nesting": (b"[" * 50_000, 400, "invalid_json"),
    "deep nesting in a field": (b'{"input": ' + b"[" * 50_000, 400, "invalid_json"),
}


@pytest.fixture(params=["worker", "balancer"])
def side(request: pytest.FixtureRequest, http: httpx2.Client, worker_http: httpx2.Client) -> Iterator[httpx2.Client]:
    client = http if request.param == "balancer" else worker_http
    yield client
    assert client.post(SPEECH, json=GOOD).status_code == 200


def refusal(answer: httpx2.Response) -> dict[str, object]:
    """The error of an answer, which must have the one shape and have come within a second."""
    assert answer.elapsed.total_seconds() < 1
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "param", "request_id"}
    assert body["error"]["request_id"] == answer.headers["x-request-id"]
    assert body["error"]["message"]
    error: dict[str, object] = body["error"]
    return error


@pytest.mark.parametrize(("body", "status", "code", "param"), BAD_FIELDS.values(), ids=BAD_FIELDS.keys())
def test_bad_field_is_named(side: httpx2.Client, body: dict[str, object], status: int, code: str, param: str) -> None:
    """A wrong field gets a 4xx that names it."""
    answer = side.post(SPEECH, content=json.dumps(body), headers=JSON)
    error = refusal(answer)
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


@pytest.mark.parametrize(("body", "status", "code"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_bad_body_is_refused(side: httpx2.Client, body: bytes, status: int | None, code: str | None) -> None:
    """A body that is no request at all gets a 4xx that says what it is."""
    answer = side.post(SPEECH, content=body, headers=JSON)
    error = refusal(answer)
    assert 400 <= answer.status_code < 500
    if status is not None:
        assert (answer.status_code, error["code"]) == (status, code)


def test_native_route_names_its_own_field(side: httpx2.Client) -> None:
    """`/synthesize` says `text` where OpenAI's route says `input`."""
    assert refusal(side.post("/synthesize", json={"text": "..."}))["param"] == "text"
    assert refusal(side.post("/synthesize", json={"text": "a" * 10_001}))["param"] == "text"


def test_body_that_is_not_json_by_its_type_is_refused(side: httpx2.Client) -> None:
    """A form or plain text gets 415, not a guess."""
    answer = side.post(SPEECH, content=json.dumps(GOOD), headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert refusal(answer)["code"] == "unsupported_media_type"


def test_unknown_path_and_method_have_the_error_shape(side: httpx2.Client) -> None:
    """404 and 405 look like every other error."""
    assert refusal(side.get("/v1/nothing"))["code"] == "route_not_found"
    assert refusal(side.get("/v1/readyz"))["code"] == "route_not_found"
    assert refusal(side.get("/v1/models/"))["code"] in ("route_not_found", "model_not_found")
    assert refusal(side.get("/stats/"))["code"] == "route_not_found"
    assert refusal(side.get(SPEECH))["code"] == "method_not_allowed"
    assert refusal(side.delete("/health"))["code"] == "method_not_allowed"
    assert refusal(side.get("/v1/models/..%2f..%2fetc%2fpasswd"))["code"] in ("route_not_found", "model_not_found")


def _port(client: httpx2.Client) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


@pytest.mark.parametrize("framing", [b"content-length: 1000000000", b"transfer-encoding: chunked"])
def test_gigabyte_is_refused_at_once(side: httpx2.Client, framing: bytes) -> None:
    """A declared gigabyte is refused before any of it is sent; an undeclared one as soon as it passes the limit."""
    started_at = time.monotonic()
    with socket.create_connection(("127.0.0.1", _port(side)), timeout=5) as connection:
        connection.sendall(b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + framing)
        connection.sendall(b"\r\n\r\n")
        if b"chunked" in framing:
            block = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
            for _ in range(17):
                connection.sendall(block)
        answer = b""
        while b"body_too_large" not in answer and (part := connection.recv(4096)):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in answer
    assert time.monotonic() - started_at < 1


def test_whole_oversize_body_can_be_sent_and_the_answer_read(side: httpx2.Client) -> None:
    """A client that sends everything before it reads still gets the 413, not a broken connection."""
    answer = side.post(SPEECH, content=b"x" * 20_000_000, headers=JSON)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"


def exchange(side: httpx2.Client, *parts: bytes) -> bytes:
    """What comes back over a bare socket, up to the close or a pause of a second."""
    with socket.create_connection(("127.0.0.1", _port(side)), timeout=1) as connection:
        answer = b""
        try:
            for part in parts:
                connection.sendall(part)
            while piece := connection.recv(65536):
                answer += piece
        except (TimeoutError, ConnectionError):
            pass
        return answer


@pytest.mark.parametrize(
    "request_",
    [
        [b"GET /health HTTP/1.1\r\nhost: x\r\nx-padding: " + b"y" * 70_000],
        [b"GET /health HTTP/1.1\r\nhost: x\r\nx-padding: " + b"y" * 70_000 + b"\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\n" + b"x-a: b\r\n" * 10_000 + b"\r\n"],
    ],
    ids=["endless", "complete", "many"],
)
def test_head_above_the_limit_is_refused(side: httpx2.Client, request_: list[bytes]) -> None:
    """A head above 64 KiB gets 431 in the error shape, whether or not it ever ends."""
    answer = exchange(side, *request_)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"headers_too_large" in answer
    assert b"x-request-id: " in answer


def test_trailers_are_bounded_and_are_no_headers(side: httpx2.Client) -> None:
    """What follows a chunked body neither fills the memory nor passes for a header of the request."""
    head = b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    answer = exchange(side, head, b"2\r\n{}\r\n0\r\nx-request-id: trailer\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 422 ")
    assert b"x-request-id: trailer" not in answer
    endless = exchange(side, head, b"2\r\n{}\r\n0\r\n", *[b"x1: y\r\n" * 1000] * 30)
    assert not endless or endless.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    "garbage", [b"garbage\r\n\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\r\n\r\n"]
)
def test_what_is_not_http_is_refused_in_the_error_shape(side: httpx2.Client, garbage: bytes) -> None:
    """Even a request that cannot be read is answered as every other one."""
    answer = exchange(side, garbage)
    assert answer.startswith(b"HTTP/1.1 4")
    body = json.loads(answer.split(b"\r\n\r\n", 1)[1])
    assert body["error"]["code"] in ("bad_request", "headers_too_large")
    assert body["error"]["request_id"]


@pytest.mark.parametrize("target", [b"*", b"/v1/../health", b"/v1/./test", b"/v1/%2e%2e/metrics", b"/.."])
def test_target_that_climbs_is_not_found(side: httpx2.Client, target: bytes) -> None:
    """No spelling of a path reaches a route that it does not name."""
    method = b"OPTIONS" if target == b"*" else b"GET"
    answer = exchange(side, method + b" " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 "), answer


def test_body_that_trickles_is_given_up() -> None:
    """The time for a body is for the whole of it: a byte now and then does not extend it."""
    with RunningWorker(free_port(0), body_timeout_s=1) as worker:
        started_at = time.monotonic()
        with socket.create_connection(("127.0.0.1", worker.port), timeout=10) as connection:
            connection.sendall(
                b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
                b"content-length: 100\r\n\r\n"
            )
            connection.settimeout(0.2)
            answer = b""
            while not answer and time.monotonic() - started_at < 8:
                connection.sendall(b" ")
                try:
                    answer = connection.recv(4096)
                except TimeoutError:
                    continue
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_head_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head gets its time from its first byte; then the connection is answered 408 and closed."""
    monkeypatch.setattr("fleet.http_protocol.HEAD_TIMEOUT_S", 0.5)

    async def application(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError("no request is complete")

    async def trickle() -> bytes:
        config = uvicorn.Config(application, http=BoundedHttpProtocol, ws="none", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        listener = bind("127.0.0.1", free_port(0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        answer = asyncio.create_task(reader.read(100))  # more could be lost to a byte that comes after the end
        for byte in b"GET / HTTP/1.1\r\nhost: x":
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.1)
        server.should_exit = True
        await serving
        writer.close()
        return await answer

    assert asyncio.run(trickle()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("given_id", ["a b", "x" * 65, "é", "a;b", ""])
def test_malformed_request_id_is_replaced(side: httpx2.Client, given_id: str) -> None:
    """Only a well-formed id is taken over; any other is replaced, so no header can be smuggled into a log."""
    answer = side.get("/health", headers={b"x-request-id": given_id.encode()})
    assert answer.headers["x-request-id"] != given_id
    assert len(answer.headers["x-request-id"]) == 32


def test_request_id_is_kept_through_the_balancer(http: httpx2.Client) -> None:
    """The caller's own id comes back, from an answer and from an error."""
    for body in (GOOD, {"input": ""}):
        answer = http.post(SPEECH, json=body, headers={"x-request-id": "my-id.1"})
        assert answer.headers.get_list("x-request-id") == ["my-id.1"]


def test_client_cannot_set_what_only_we_say(http: httpx2.Client, fleet: RunningFleet) -> None:
    """Internal headers of a request go no further, and hop-by-hop ones are dropped."""
    answer = http.post(SPEECH, json=GOOD, headers={"x-worker": "forged", "te": "trailers", "connection": "x-foo"})
    assert answer.headers["x-worker"] in {worker.name for worker in fleet.stats().workers}
