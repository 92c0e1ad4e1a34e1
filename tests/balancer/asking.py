"""Requests for a tone through a balancer, and what its tests start."""

from __future__ import annotations

import json
import socket

import httpx2

from tests.running import RunningBalancer

SPEECH = "/v1/audio/speech"
TEXT = "The quick brown fox jumps over the lazy dog. " * 60


def ask(balancer: RunningBalancer, timeout_s: float = 20, **fields: object) -> httpx2.Response:
    """One request of the tone workers; `fields` are of its body, headers go by `headers`."""
    headers = fields.pop("headers", None)
    assert headers is None or isinstance(headers, dict)
    body = {"input": "hi", "response_format": "pcm", **fields}
    return httpx2.post(balancer.url + SPEECH, json=body, headers=headers, trust_env=False, timeout=timeout_s)


def open_stream(balancer: RunningBalancer, head: str = "", **tone: float) -> socket.socket:
    body = json.dumps({"input": "hi", "response_format": "pcm", "tone": tone}).encode()
    connection = socket.create_connection(("127.0.0.1", balancer.port), timeout=20)
    lines = f"POST {SPEECH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n{head}"
    connection.sendall(f"{lines}content-length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def whole_answer(connection: socket.socket) -> bytes:
    """All that comes until the end of the connection or of a chunked body."""
    got = b""
    while not got.endswith(b"0\r\n\r\n") and (piece := connection.recv(65536)):
        got += piece
    return got
