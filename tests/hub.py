"""A hub of models on loopback."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from fleet.models import file_digest, git_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "owner/tiny"
LFS = (".safetensors", ".pt")


@dataclass
class LocalHub:
    """A hub on loopback: model information, `resolve` with its redirect, ranges, and faults on demand."""

    folder: Path
    break_after: int | None = None
    ranged: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    tokens: set[tuple[str, str | None]] = field(default_factory=set)
    url: str = ""

    def information(self) -> dict[str, object]:
        siblings = []
        for path in sorted(self.folder.iterdir()):
            entry = {"rfilename": path.name, "size": path.stat().st_size, "blobId": git_digest(path)}
            lfs = {"sha256": file_digest(path), "size": path.stat().st_size, "pointerSize": 134}
            siblings.append({**entry, "lfs": lfs} if path.suffix in LFS else entry)
        return {"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}


def handler(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            hub.tokens.add((path.split("/")[1], self.headers.get("Authorization")))
            if path.startswith(f"/api/models/{REPOSITORY}/revision/"):
                known = path.rpartition("/")[2] in (COMMIT, "main")
                body = json.dumps(hub.information()).encode() if known else b"{}"
                self.reply(200 if known else 404, body, {} if known else {"X-Error-Code": "RevisionNotFound"})
            elif path.startswith(f"/{REPOSITORY}/resolve/{COMMIT}/"):
                elsewhere = hub.url.replace("127.0.0.1", "localhost")  # another origin
                self.reply(302, b"", {"Location": f"{elsewhere}/cdn/{path.rpartition('/')[2]}?signed=1"})
            elif path.startswith("/cdn/"):
                self.send_file(hub.folder / path.rpartition("/")[2])
            else:
                self.reply(404, b"", {})

        def send_file(self, path: Path) -> None:
            asked = self.headers.get("Range")
            hub.asked.append((path.name, asked))
            content = path.read_bytes()
            match = re.fullmatch(r"bytes=(\d+)-", asked or "") if hub.ranged else None
            start = int(match[1]) if match else 0
            told = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if match else {}
            self.reply(206 if match else 200, content[start:], told)

        def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if hub.break_after is not None and self.path.startswith("/cdn/") and len(body) > hub.break_after:
                self.wfile.write(body[: hub.break_after])
                self.close_connection = True
            else:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@contextmanager
def serving(hub: LocalHub) -> Iterator[LocalHub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
