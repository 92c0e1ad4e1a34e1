"""Debian's Chromium plays each format of a streamed answer before the answer is complete."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.running import RunningWorker, free_port
from tests.tools import require_tool

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 10
WATCH_LIMIT_S = 30.0

# What a user's page would hold: an audio element with the address of the speech. It tells what it hears.
PAGE = """<!doctype html><audio id="speech" src="/speech" autoplay></audio><script>
const speech = document.getElementById("speech")
const tell = (event) => fetch("/heard", {method: "POST", body: JSON.stringify(
    {event, at: speech.currentTime, duration: String(speech.duration), error: speech.error && speech.error.message})})
let early = false
speech.addEventListener("timeupdate", () => {
    if (!early && speech.currentTime > 0.5) { early = true; speech.playbackRate = 12; tell("early") }
})
speech.addEventListener("error", () => tell("error"))
speech.addEventListener("ended", () => tell("ended"))
</script>"""


class _Relay(ThreadingHTTPServer):
    """The page, and a worker's answer whose last quarter it holds back until the page has heard some of it."""

    daemon_threads = True

    def __init__(self, speech_url: str, first_bytes: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.speech_url, self.first_bytes = speech_url, first_bytes
        self.heard: list[dict[str, Any]] = []
        self.early, self.over = threading.Event(), threading.Event()
        self.completed_unheard = False


class _Handler(BaseHTTPRequestHandler):
    server: _Relay
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/speech":
            self._relay_speech()
        else:
            self._answer(200 if self.path == "/" else 404, PAGE.encode(), "text/html")

    def do_POST(self) -> None:
        heard = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.heard.append(heard)
        self._answer(204, b"", "text/plain")
        (self.server.early if heard["event"] == "early" else self.server.over).set()

    def _answer(self, status: int, body: bytes, media_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _relay_speech(self) -> None:
        # The browser's own headers, of which Range asks for more than a stream can give.
        asked = {name: value for name, value in self.headers.items() if name.lower() in {"range", "accept"}}
        with httpx2.stream("GET", self.server.speech_url, headers=asked, trust_env=False) as answer:
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers["content-type"])
            self.send_header("Connection", "close")
            self.end_headers()
            sent = 0
            for part in answer.iter_raw(4096):
                if sent >= self.server.first_bytes and not self.server.early.wait(WATCH_LIMIT_S):
                    self.server.completed_unheard = True
                self.wfile.write(part)
                sent += len(part)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its parent's name
        """Silent: the test's own report says what was heard."""


@contextmanager
def _relaying(speech_url: str, first_bytes: int) -> Iterator[_Relay]:
    relay = _Relay(speech_url, first_bytes)
    serving = threading.Thread(target=relay.serve_forever)
    serving.start()
    try:
        yield relay
    finally:
        relay.early.set()  # whoever waits goes on
        relay.shutdown()
        serving.join()
        relay.server_close()


@contextmanager
def _chromium(url: str, profile: Path) -> Iterator[None]:
    command = [
        require_tool("chromium"),
        "--headless=new",
        "--no-sandbox",  # the tests may run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--autoplay-policy=no-user-gesture-required",
        f"--user-data-dir={profile}",
        url,
    ]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        browser.terminate()
        browser.wait(20)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorker]:
    with RunningWorker(free_port(), data_dir=tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "flac", "wav"])
def test_chromium_plays_while_the_sound_arrives(worker: RunningWorker, tmp_path: Path, audio_format: str) -> None:
    query = httpx2.QueryParams({"text": TEXT, "output_format": audio_format, "voice_mode": "predefined"})
    url = f"{worker.url}/tts-stream?{query}"
    whole = httpx2.get(url, trust_env=False)
    decode = [require_tool("ffmpeg"), "-v", "error", "-i", "-", "-f", "s16le", "-ar", "8000", "-ac", "1", "-"]
    audio_s = len(subprocess.run(decode, input=whole.content, capture_output=True, check=True).stdout) / 16_000
    assert audio_s > 8

    with (
        _relaying(url, len(whole.content) * 3 // 4) as relay,
        _chromium(f"http://127.0.0.1:{relay.server_port}/", tmp_path),
    ):
        assert relay.over.wait(WATCH_LIMIT_S), f"nothing more heard after {relay.heard}"
        assert not relay.completed_unheard, "the page heard nothing before the rest was sent"
    assert [heard["event"] for heard in relay.heard] == ["early", "ended"], relay.heard
    assert relay.heard[-1]["at"] == pytest.approx(audio_s, abs=0.2)
