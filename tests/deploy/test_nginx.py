"""The nginx site in front of a real fleet: what passes through it, as it passes."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.deploy.site import LONG_TEXT, SPEECH, Certificate, Nginx, speak, upstream
from tests.running import RunningFleet, in_flight, wait_for


@pytest.mark.parametrize("tls", [False, True], ids=["http", "tls"])
def test_nginx_accepts_the_site(tmp_path: Path, tls: bool) -> None:
    """nginx reads each site without an error or a warning."""
    certificate = Certificate(tmp_path) if tls else None
    command = Nginx(tmp_path, 6095, 6096, certificate=certificate).command("-t")
    check = subprocess.run(command, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
    assert "[" not in check.stderr, check.stderr


def test_speech_begins_long_before_it_ends(site: Nginx, fleet: RunningFleet) -> None:
    """A long text is heard through nginx while it is still being spoken, byte for byte as the balancer gives it."""
    began_at = time.monotonic()
    request = {"input": LONG_TEXT, "response_format": "pcm"}
    with httpx2.stream("POST", site.url + SPEECH, json=request, timeout=60, trust_env=False) as answer:
        pieces = answer.iter_raw()
        sound = [next(pieces)]
        first_s = time.monotonic() - began_at
        sound.extend(pieces)
        whole_s = time.monotonic() - began_at
    assert first_s < whole_s / 3
    assert b"".join(sound) == speak(fleet.url, LONG_TEXT)


def test_a_pausing_listener_holds_the_worker_back(site: Nginx, fleet: RunningFleet) -> None:
    """A listener who pauses makes the worker wait, and one who then leaves sets it free."""
    # A quarter of the speed makes 100 MB of sound, more than all the sockets on the way can hold.
    request = {"input": LONG_TEXT, "response_format": "pcm", "speed": 0.25}
    with httpx2.stream("POST", site.url + SPEECH, json=request, timeout=60, trust_env=False) as answer:
        pieces = answer.iter_raw()  # Kept: without it the answer would be closed at once.
        next(pieces)
        wait_for(lambda: _stands_still(fleet))
        assert fleet.stats().totals.in_flight == 1
    wait_for(lambda: in_flight(fleet) == 0)


def _stands_still(fleet: RunningFleet) -> bool:
    """Whether the balancer passes on nothing for a second."""
    sent = fleet.stats().totals.bytes_sent
    time.sleep(1)
    return fleet.stats().totals.bytes_sent == sent


def test_a_small_piece_passes_at_once(tmp_path: Path) -> None:
    """Five bytes reach the listener before the next are made, though nginx as a whole has gzip on."""
    heard = threading.Event()
    was_heard = []

    def converse(connection: socket.socket) -> None:
        connection.recv(65536)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head + b"5\r\nfirst\r\n")
        was_heard.append(heard.wait(5))
        connection.sendall(b"4\r\nlast\r\n0\r\n\r\n")

    with (
        upstream(converse) as port,
        Nginx(tmp_path, port) as site,
        httpx2.stream("POST", site.url, headers={"accept-encoding": "gzip"}, trust_env=False) as answer,
    ):
        pieces = answer.iter_raw()
        first = next(pieces)
        heard.set()
        assert first + b"".join(pieces) == b"firstlast"
    assert was_heard == [True]


def test_the_balancer_is_asked_once_over_a_kept_connection(tmp_path: Path) -> None:
    """A POST that a kept connection loses is not sent again, and what it says of its origin is replaced."""
    requests = []

    def converse(connection: socket.socket) -> None:
        """Answer the first request on a connection, drop the second."""
        for answer in (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""):
            requests.append(connection.recv(65536).decode().lower())
            connection.sendall(answer)

    with upstream(converse) as port, Nginx(tmp_path, port) as site, httpx2.Client(trust_env=False) as client:
        forged = {"x-forwarded-for": "203.0.113.9"}
        statuses = [client.post(site.url + SPEECH, headers=forged).status_code for _ in range(2)]
    assert statuses == [200, 502]
    assert len(requests) == 2
    for request in requests:
        assert request.startswith(f"post {SPEECH} http/1.1\r\n")
        assert "\r\nconnection:" not in request
        assert request.count("x-forwarded-for:") == request.count("x-forwarded-for: 127.0.0.1\r\n") == 1


def test_reloading_loses_no_request(site: Nginx, fleet: RunningFleet) -> None:
    """Ten reloads under load cut no answer short and refuse no connection."""
    text = LONG_TEXT[:1000]
    expected = speak(fleet.url, text)
    with ThreadPoolExecutor(2) as callers:
        answers = []
        for _ in range(10):
            answers += [callers.submit(speak, site.url, text) for _ in range(2)]
            site.reload()
        assert all(answer.result() == expected for answer in answers)


async def test_text_is_spoken_as_it_is_written(site: Nginx, fleet: RunningFleet) -> None:
    """The WebSocket passes, each sentence's sound before the next one is written, and its end frees the engine."""
    async with connect(site.url.replace("http", "ws") + "/v1/audio/stream", proxy=None) as connection:
        for message in (
            {"type": "text", "text": "The first sentence. And"},
            {"type": "text", "text": " the second. And"},
        ):
            await connection.send(json.dumps(message))
            while not isinstance(await asyncio.wait_for(connection.recv(), 10), bytes):
                pass
    await asyncio.to_thread(wait_for, lambda: in_flight(fleet) == 0, 1.5)


async def test_a_page_served_beside_it_may_use_it(site: Nginx) -> None:
    """Its origin is the address that the caller sees, which nginx passes on; another page's is refused."""
    address = site.url.replace("http", "ws") + "/v1/audio/stream"
    async with connect(address, proxy=None, origin=Origin(site.url)):
        pass
    with pytest.raises(InvalidStatus):
        await connect(address, proxy=None, origin=Origin("https://elsewhere.example"))


def test_openai_client_through_it(site: Nginx) -> None:
    """The installed package, streaming."""
    client = openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0)
    streaming = client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input="Hello through nginx.", response_format="pcm"
    )
    with streaming as speech:
        assert len(b"".join(speech.iter_bytes())) > 48_000 // 2
