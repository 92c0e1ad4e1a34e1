"""The nginx site, in a real nginx in front of a real fleet."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import httpx2
import openai
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.running import ROOT, RunningFleet, free_port, in_flight, wait_for
from tests.tools import require_tool

SPEECH = "/v1/audio/speech"
LONG_TEXT = "The quick brown fox jumps over the lazy dog near the river bank today. " * 126
"""About 9,000 characters: 25 MB of sound, which takes a second or two to make."""

ELSEWHERE = "127.0.0.2"
"""A source address that is not the one nginx takes for its own machine."""

# The http{} an operator has: this one turns on what would hurt streams, as Debian's does with gzip.
AROUND_THE_SITE = """\
worker_processes 1;
daemon off;
pid nginx.pid;
error_log error.log notice;
events {}
http {
    access_log off;
    gzip on;
    gzip_types *;
    gzip_min_length 0;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include site.conf;
}
"""


class Nginx:
    """The site on a port of its own, in front of `upstream_port`."""

    def __init__(self, directory: Path, upstream_port: int) -> None:
        self._directory = directory
        self._program = require_tool("nginx")
        self._port = free_port(0)
        self.url = f"http://127.0.0.1:{self._port}"
        site = (ROOT / "nginx" / "chatterbox-fleet.conf").read_text()
        for shipped, ours in (
            ("listen 80 ", f"listen 127.0.0.1:{self._port} "),
            ("server 127.0.0.1:6095;", f"server 127.0.0.1:{upstream_port};"),
        ):
            assert site.count(shipped) == 1
            site = site.replace(shipped, ours)
        (directory / "site.conf").write_text(site)
        # Started as root, nginx would give its work to a user who cannot enter a temporary directory of root's.
        user = "user root;\n" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(user + AROUND_THE_SITE)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self.command())
        wait_for(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def command(self, *arguments: str) -> list[str]:
        return [self._program, "-p", str(self._directory), "-e", "error.log", "-c", "nginx.conf", *arguments]

    def reload(self) -> None:
        """Returns when the new worker process has taken over from the old one."""
        before = self._handovers()
        subprocess.run(self.command("-s", "reload"), check=True)
        wait_for(lambda: self._handovers() > before)

    def _handovers(self) -> int:
        return (self._directory / "error.log").read_text().count("gracefully shutting down")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@pytest.fixture(scope="module")
def site(fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """The site in front of the fleet."""
    with Nginx(tmp_path_factory.mktemp("nginx"), fleet.port) as running:
        yield running


@contextmanager
def upstream(converse: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a balancer of the test's own making, which holds its connections one after the other."""

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    converse(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # Closing alone would leave the thread waiting.
            thread.join(10)


def speak(url: str, text: str) -> bytes:
    """The sound of a text, over a connection of its own."""
    answer = httpx2.post(url + SPEECH, json={"input": text, "response_format": "pcm"}, timeout=60, trust_env=False)
    answer.raise_for_status()
    return answer.content


def test_nginx_accepts_the_site(tmp_path: Path) -> None:
    """nginx reads the site without an error or a warning."""
    check = subprocess.run(Nginx(tmp_path, 6095).command("-t"), capture_output=True, text=True, check=False)
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


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_a_body_above_the_limit_is_refused(site: Nginx, declared: bool) -> None:
    """A body above 1 MiB gets 413 from nginx itself, whether or not it says its length."""
    body = bytes(1024 * 1024 + 1)
    answer = httpx2.post(site.url + SPEECH, content=body if declared else iter([body]), trust_env=False)
    assert answer.status_code == 413
    assert "x-request-id" not in answer.headers


def test_a_recording_may_be_larger_than_other_bodies(site: Nginx) -> None:
    """2 MiB that are no recording pass nginx on the way to the library, which says what is wrong with them."""
    answer = httpx2.post(
        f"{site.url}/voices",
        files={"file": ("noise.wav", bytes(2 * 1024 * 1024))},
        data={"name": "Large"},
        timeout=30,
        trust_env=False,
    )
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "recording_unfit"


@pytest.mark.parametrize(
    "path", ["/metrics", "/stats", "/%6detrics", "//stats", "/workers", "/workers/x/drain", "/draining"]
)
def test_figures_and_administration_are_for_this_machine_only(site: Nginx, path: str) -> None:
    """Another address may not read the figures, however it spells them and whatever it claims to be."""
    with httpx2.Client(
        transport=httpx2.HTTPTransport(local_address=ELSEWHERE), headers={"x-forwarded-for": "127.0.0.1"}
    ) as stranger:
        assert stranger.get(site.url + path).status_code == 403
        assert stranger.get(site.url + "/health").status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/stats"])
def test_this_machine_reads_the_figures(site: Nginx, path: str) -> None:
    """This machine may read the figures through nginx."""
    assert httpx2.get(site.url + path, trust_env=False).status_code == 200


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
