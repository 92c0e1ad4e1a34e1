"""A checkpoint from a hub: a real server that speaks the hub's protocol, and what happens when it is away."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from fleet.startup_errors import ModelMissing
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.weights import find_checkpoint

ROOT = Path(__file__).parents[4]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
INCOMPLETE = "f" * 40
BRANCH = "main"
MODEL = "ResembleAI/chatterbox"


@pytest.mark.parametrize(
    "reference",
    [
        "hub:",
        "hub:chatterbox",
        f"hub:{MODEL}",
        f"hub:{MODEL}@main",
        f"hub:{MODEL}@{COMMIT[:12]}",
        f"hub:{MODEL}@{COMMIT.upper()}",
        f"hub:{MODEL}@{COMMIT}0",
        f"hub:{MODEL}@{COMMIT}\n",
        f"hub:chatterbox@{COMMIT}",
        f"hub:https://huggingface.co/{MODEL}@{COMMIT}",
        f"hub:a/b/c@{COMMIT}",
        f"hub:../..@{COMMIT}",
        f"hub:a--b/c@{COMMIT}",
    ],
)
def test_malformed_hub_references(reference: str) -> None:
    """A hub revision that is not an owner, a name and a whole commit is refused before the network is asked."""
    with pytest.raises(ModelMissing) as caught:
        find_checkpoint(reference)
    assert caught.value.message.count("\n") == 0


class Hub(ThreadingHTTPServer):
    """As much of the hub as a download of one file needs: HEAD and GET of `/REPO/resolve/COMMIT/FILE`.

    The branch `main` stands at COMMIT.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.directory = directory
        self.sent: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self.wfile.write(self._answer())

    def _answer(self) -> bytes:
        repository, _, rest = self.path[1:].partition("/resolve/")
        commit, _, name = rest.partition("/")
        path = self.server.directory / name
        problem = self._problem(repository, commit, path)
        contents = b"" if problem else path.read_bytes()
        self.send_response(404 if problem else 200)
        self.send_header("Content-Length", str(len(contents)))
        if problem:
            self.send_header("X-Error-Code", problem)
        else:
            self.send_header("X-Repo-Commit", COMMIT if commit == BRANCH else commit)
            self.send_header("ETag", f'"{hashlib.sha256(contents).hexdigest()}"')
            self.server.sent += [name] * (self.command == "GET")
        self.end_headers()
        return contents

    @staticmethod
    def _problem(repository: str, commit: str, path: Path) -> str | None:
        if repository != MODEL:
            return "RepoNotFound"
        if commit not in {COMMIT, INCOMPLETE, BRANCH}:
            return "RevisionNotFound"
        if not path.is_file() or (commit, path.name) == (INCOMPLETE, ENGLISH.conditionals):
            return "EntryNotFound"
        return None

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


@dataclass(frozen=True)
class Found:
    """What became of one reference: the directory or the message of a `ModelMissing`, and seconds."""

    directory: str | None
    message: str | None
    seconds: float


FIND = """
import json, sys, time
from fleet.startup_errors import ModelMissing
from workers.engine.chatterbox.weights import find_checkpoint, newest

for reference in sys.argv[1:]:
    began, directory, message = time.monotonic(), None, None
    try:
        if not reference.startswith("hub:"):
            reference = newest("ResembleAI/chatterbox", reference)
        directory = str(find_checkpoint(reference))
    except ModelMissing as error:
        message = error.message
    print(json.dumps([directory, message, time.monotonic() - began]))
"""


def find_through(url: str, home: Path, *references: str) -> list[Found]:
    """Each reference, or branch of the model, looked for in a process that reads the hub's settings at its start."""
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower() and name[:3] != "HF_"}
    settings_of_hub = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",  # else it first looks for a list of agents to name, for 3 s
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_ETAG_TIMEOUT": "1",
    }
    finished = subprocess.run(
        [sys.executable, "-c", FIND, *references],
        cwd=ROOT,
        env=kept | settings_of_hub,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return [Found(*json.loads(line)) for line in finished.stdout.splitlines()]


def test_a_hub_revision(tiny: Path, tmp_path: Path) -> None:
    """A hub revision is downloaded once and then found without the network; what the hub lacks is named."""
    contents = shutil.copytree(tiny, tmp_path / "hub")
    (contents / ENGLISH.s3gen).write_bytes(b"s3gen")
    (contents / ENGLISH.voice_encoder).write_bytes(b"voice encoder")
    whole, unknown = f"hub:{MODEL}@{COMMIT}", f"hub:{MODEL}@{COMMIT[::-1]}"
    incomplete, nobody = f"hub:{MODEL}@{INCOMPLETE}", f"hub:nobody/nothing@{COMMIT}"

    with serving(Hub(contents)) as hub:
        first, again, *refused = find_through(hub.url, tmp_path / "home", whole, whole, unknown, incomplete, nobody)
    assert first.directory is not None
    assert again.directory == first.directory
    for name in ENGLISH.all:
        assert (Path(first.directory) / name).read_bytes() == (contents / name).read_bytes()
        assert hub.sent.count(name) == 1
    lacking = (f"{ENGLISH.t3} of {MODEL}", f"{ENGLISH.conditionals} of {MODEL}", f"{ENGLISH.t3} of nobody/nothing")
    for found, what in zip(refused, lacking, strict=True):
        assert found.directory is None
        assert str(found.message).startswith(what)
        assert found.seconds < 5

    offline, uncached = find_through(hub.url, tmp_path / "home", whole, unknown)
    assert offline.directory == first.directory
    assert offline.seconds < 5
    assert str(uncached.message).startswith(f"{ENGLISH.t3} of {MODEL} at {COMMIT[::-1][:12]} cannot be had: ")
    assert uncached.seconds < 5


@contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def hanging_up() -> Iterator[str]:
    """A port that takes connections and ends them at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(1)
                connection.close()

        thread = Thread(target=hang_up)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("server", [silent, hanging_up])
def test_a_broken_hub(tmp_path: Path, server: Callable[[], Any]) -> None:
    """A hub that does not answer is given up on within seconds."""
    with server() as url:
        (found,) = find_through(url, tmp_path, f"hub:{MODEL}@{COMMIT}")
    assert str(found.message).startswith(f"{ENGLISH.t3} of {MODEL} at {COMMIT[:12]} cannot be had: ")
    assert found.seconds < 5


def test_a_branch(tiny: Path, tmp_path: Path) -> None:
    """The hub is asked; when it is away the branch stands where it stood; one that nobody knows is named."""
    contents = shutil.copytree(tiny, tmp_path / "hub")
    (contents / ENGLISH.s3gen).write_bytes(b"s3gen")
    (contents / ENGLISH.voice_encoder).write_bytes(b"voice encoder")
    with serving(Hub(contents)) as hub:
        first, again, unknown = find_through(hub.url, tmp_path / "home", BRANCH, BRANCH, "nothing")
    assert first.directory is not None
    assert Path(first.directory).name == COMMIT
    assert again.directory == first.directory
    assert all(hub.sent.count(name) == 1 for name in ENGLISH.all)
    assert str(unknown.message).startswith(f"{ENGLISH.tokenizer} of {MODEL} at nothing cannot be had: ")

    offline, uncached = find_through(hub.url, tmp_path / "home", BRANCH, "nothing")
    assert offline.directory == first.directory
    assert offline.seconds < 5
    assert str(uncached.message).startswith(f"{ENGLISH.tokenizer} of {MODEL} at nothing cannot be had: ")
    assert uncached.seconds < 5
