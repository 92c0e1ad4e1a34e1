"""HAProxy over the workers that our balancer has too, set as for speech and to serve whatever it can."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx2

from tests.running import free_port, wait_for
from tests.tools import require_tool

# As ours: another worker at each retry, a body held until it is whole, ejection by probes and by failed requests in a
# row, three attempts beyond the first.
_TEXT = """\
global
    maxconn 2000
defaults
    mode http
    balance roundrobin
    option http-no-delay
    option http-buffer-request
    option redispatch 1
    retries 3
    retry-on conn-failure empty-response response-timeout 502 503
    http-reuse safe
    timeout connect 3s
    timeout client 60s
    timeout http-request 30s
    timeout queue 30s
    timeout server {idle_ms:.0f}ms
    timeout check {probe_timeout_ms:.0f}ms
frontend front
    bind 127.0.0.1:{port}
    monitor-uri /up
    default_backend workers
backend workers
    option httpchk GET /ready
    http-check expect status 200
    http-response set-header x-worker %s
    default-server check inter {probe_ms:.0f}ms downinter 200ms rise 1 fall 2
    default-server observe layer7 error-limit 5 on-error mark-down
{servers}
"""


class RunningHaproxy:
    """A master and its worker process as children, entered once they answer. Times in seconds."""

    def __init__(
        self, folder: Path, *worker_urls: str, idle_timeout_s: float, probe_interval_s: float, probe_timeout_s: float
    ) -> None:
        self.port = free_port(0)
        self.url = f"http://127.0.0.1:{self.port}"
        self._times_ms = {
            "idle_ms": idle_timeout_s * 1000,
            "probe_ms": probe_interval_s * 1000,
            "probe_timeout_ms": probe_timeout_s * 1000,
        }
        self._file = folder / "haproxy.cfg"
        self._write(worker_urls)
        command = [require_tool("haproxy"), "-q", "-W", "-f", str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        try:
            wait_for(self._answers)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def reload(self, *worker_urls: str) -> None:
        """These workers from now on, in a new process that takes the listening socket over."""
        self._write(worker_urls)
        self._process.send_signal(signal.SIGUSR2)

    def _write(self, worker_urls: tuple[str, ...]) -> None:
        servers = "\n".join(f"    server worker-{n} {urlsplit(url).netloc}" for n, url in enumerate(worker_urls))
        self._file.write_text(_TEXT.format(port=self.port, servers=servers, **self._times_ms))

    def _answers(self) -> bool:
        assert self._process.poll() is None
        try:
            return httpx2.get(f"{self.url}/up", trust_env=False).status_code == 200
        except httpx2.ConnectError:
            return False
