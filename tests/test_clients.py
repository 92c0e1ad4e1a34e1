"""Clients that must work unmodified: the snippets of docs/clients.md, and requests as other programs send them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import httpx2
import pytest

from fleet.contract import AudioFormat
from tests.running import ROOT, RunningFleet
from tests.sound import decode, loudness
from tests.tools import require_tool

SNIPPETS = re.findall(r"```(bash|python|javascript)\n(.*?)```", (ROOT / "docs/clients.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where snippets run; with the npm package that they import."""
    path = tmp_path_factory.mktemp("clients")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests/clients" / name, path)
    command = [require_tool("npm"), "ci", "--no-audit", "--no-fund", "--loglevel", "error"]
    subprocess.run(command, cwd=path, check=True, timeout=300)
    return path


@pytest.mark.parametrize(("language", "code"), SNIPPETS)
def test_snippets_of_the_page(folder: Path, fleet: RunningFleet, language: str, code: str) -> None:
    """Each runs as it stands, and the file that it writes is speech."""
    runs = {
        "bash": ["bash", "-euc"],
        "python": [sys.executable, "-c"],
        "javascript": [require_tool("node"), "--input-type=module", "--eval"],
    }
    code = code.replace("6095", str(fleet.port))
    done = subprocess.run(
        [*runs[language], code], cwd=folder, capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    written = re.search(r"\w+\.(wav|mp3|opus)\b", code)
    if written is None:
        assert "event: speech.audio.done" in done.stdout
        return
    samples, rate = decode((folder / written[0]).read_bytes(), AudioFormat(written[1]))
    assert len(samples) / rate > 0.8
    assert loudness(samples) > 0.01


JS_STREAMS = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.env.BASE, apiKey: "none", maxRetries: 0 });
const text = "The quick brown fox jumps over the lazy dog. ".repeat(40);
const plain = await client.audio.speech.create(
  { model: "tts-1", voice: "alloy", input: text, response_format: "pcm" }).asResponse();
let chunks = 0, bytes = 0;
for await (const chunk of plain.body) { chunks += 1; bytes += chunk.length; }
const sse = await client.audio.speech.create(
  { model: "tts-1", voice: "alloy", input: "Hello.", response_format: "pcm", stream_format: "sse" }).asResponse();
const events = (await sse.text()).match(/^event: .*$/gm);
let refused;
try { await client.audio.speech.create({ model: "tts-1", voice: "nobody", input: "x" }); }
catch (error) { refused = [error.status, error.code, error.param]; }
const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(JSON.stringify({ chunks, bytes, last: events.at(-1), refused, models }));
"""


def test_openai_npm_package(folder: Path, fleet: RunningFleet) -> None:
    """Streams, events, typed errors and the list of models."""
    done = subprocess.run(
        [require_tool("node"), "--input-type=module", "--eval", JS_STREAMS],
        cwd=folder,
        env={**os.environ, "BASE": f"{fleet.url}/v1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["chunks"] > 5
    assert told["bytes"] / 48_000 > 60
    assert told["last"] == "event: speech.audio.done"
    assert told["refused"] == [404, "voice_not_found", "voice"]
    assert "tts-1" in told["models"]


def test_open_webui(fleet: RunningFleet) -> None:
    """Both lists without a key, then speech with the fields that it sends."""
    base = f"{fleet.url}/v1"
    with httpx2.Client(trust_env=False, timeout=30) as client:
        voices = client.get(f"{base}/audio/voices").json()["voices"]
        assert all(isinstance(voice["id"], str) and isinstance(voice["name"], str) for voice in voices)
        assert {"id": "tts-1"} in client.get(f"{base}/audio/models").json()["models"]
        answer = client.post(
            f"{base}/audio/speech",
            headers={"Authorization": "Bearer none", "X-OpenWebUI-User-Name": "Somebody", "X-OpenWebUI-User-Id": "1"},
            json={"input": "Hello there.", "voice": voices[0]["id"], "model": "tts-1"},
        )
        assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/mpeg")
        assert len(decode(answer.content, AudioFormat.mp3)[0]) > 10_000


def test_detection_of_wyoming_bridges(http: httpx2.Client) -> None:
    """They would take whoever answers `/v1/readyz` for another product."""
    assert http.get("/v1/test").json() == {"status": "ok"}
    assert http.get("/v1/readyz").status_code == 404


@pytest.mark.parametrize("audio_format", [each for each in AudioFormat if each is not AudioFormat.pcm])
def test_stream_is_recognised_while_it_arrives(fleet: RunningFleet, audio_format: AudioFormat) -> None:
    """A player that is given the beginning of a stream decodes it, before the end exists."""
    body = {"input": "The quick brown fox jumps over the lazy dog. " * 100, "response_format": audio_format}
    with httpx2.stream("POST", f"{fleet.url}/v1/audio/speech", json=body, trust_env=False, timeout=30) as answer:
        assert "content-length" not in answer.headers
        assert answer.headers["content-type"] == audio_format.media_type
        pieces = _Pipe(answer.iter_raw())
        with av.open(pieces, "r") as container:
            stream = container.streams.audio[0]
            heard = 0
            for frame in container.decode(stream):
                heard += frame.samples
                if heard > 2 * stream.rate:
                    break
        assert not pieces.ended


class _Pipe:
    """What a player reads from; it cannot seek."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""
        self.ended = False

    def read(self, size: int) -> bytes:
        while not self._left and not self.ended:
            try:
                self._left = next(self._pieces)
            except StopIteration:
                self.ended = True
        taken, self._left = self._left[:size], self._left[size:]
        return taken
