"""The nginx site as an operator has it, on ports of its own, for tests."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import httpx2

from tests.running import ROOT, free_port, wait_for
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
    """A site of `nginx/` in front of the balancers at `upstream_ports`, with some of its text changed."""

    def __init__(
        self,
        directory: Path,
        *upstream_ports: int,
        certificate: Certificate | None = None,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self._program = require_tool("nginx")
        self.port = free_port(0)
        self.plain_port = free_port(0) if certificate else self.port
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self.port}"
        shutil.copytree(ROOT / "nginx", directory, dirs_exist_ok=True)
        shipped = {
            "listen 80 ": f"listen 127.0.0.1:{self.plain_port} ",
            "server 127.0.0.1:6095;": "".join(f"server 127.0.0.1:{port};" for port in upstream_ports),
            "/var/www/chatterbox-fleet": str(directory / "www"),
            **(changes or {}),
        }
        if certificate:
            shipped["listen 443 "] = f"listen 127.0.0.1:{self.port} "
            shipped["/etc/ssl/chatterbox-fleet/fullchain.pem"] = str(certificate.chain)
            shipped["/etc/ssl/chatterbox-fleet/privkey.pem"] = str(certificate.key)
        site = directory / ("chatterbox-fleet-tls.conf" if certificate else "chatterbox-fleet.conf")
        _change([site, *(directory / "snippets").iterdir()], shipped)
        # Started as root, nginx would give its work to a user who cannot enter a temporary directory of root's.
        user = "user root;\n" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(user + AROUND_THE_SITE.replace("site.conf", site.name))

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
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def _change(files: list[Path], changes: Mapping[str, str]) -> None:
    """Put what a test needs in the place of what is shipped, which must be there."""
    found = set()
    for file in files:
        text = file.read_text()
        for shipped, ours in changes.items():
            if shipped in text:
                found.add(shipped)
                text = text.replace(shipped, ours)
        file.write_text(text)
    assert found == changes.keys()


class Certificate:
    """A certificate for this machine, made by openssl and vouched for by nobody else."""

    def __init__(self, directory: Path) -> None:
        self.chain, self.key = directory / "fullchain.pem", directory / "privkey.pem"
        subprocess.run(
            [
                *(require_tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-noenc", "-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-keyout", self.key, "-out", self.chain),
            ],
            check=True,
            capture_output=True,
        )

    def trusted(self) -> ssl.SSLContext:
        """What a client needs to believe it."""
        return ssl.create_default_context(cafile=str(self.chain))


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
