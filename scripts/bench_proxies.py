"""Tone workers and what stands in front of them, as processes: the balancer, HAProxy and nginx."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx2
import psutil
from bench_fleet import ROOT
from bench_streams import HOST

_START_LIMIT_S, _STOP_LIMIT_S = 60.0, 15.0
_IDLE_S = 300
_HTTP = httpx2.Client(timeout=30, trust_env=False)
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
"""Debian keeps both proxies in a directory that only root's PATH names."""

# Both are set as for speech: chunks passed on at once, connections kept on both sides, an access log.
_HAPROXY = """\
global
    log stdout format raw local0
    maxconn 9000
defaults
    log global
    mode http
    option httplog
    option http-no-delay
    http-reuse always
    balance roundrobin
    timeout connect 5s
    timeout client {idle}s
    timeout server {idle}s
frontend front
    bind {host}:{port} backlog 2048
    default_backend tones
backend tones
{servers}
"""
_NGINX = """\
{user}worker_processes 1;
worker_rlimit_nofile {files};
daemon off;
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 8192; }}
http {{
    access_log access.log;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    upstream tones {{
{servers}
        keepalive 1024;
    }}
    server {{
        listen {host}:{port} backlog=2048;
        keepalive_requests 1000000;
        location / {{
            proxy_pass http://tones;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout {idle}s;
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """A process that speech can be asked of, and how: its port."""

    name: str
    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def cpu_s(self) -> float:
        """What it and its children have taken since they began."""
        taken = 0.0
        for process in self._all():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                taken += times.user + times.system
        return taken

    def rss_mib(self) -> float:
        return round(sum(process.memory_info().rss for process in self._all()) / 2**20, 1)

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


class NotStarted(Exception):
    """A process did not come up; what it said is in the message."""


@contextmanager
def tone_workers(folder: Path, count: int, *, slots: int = 0, max_jobs: int = 4096) -> Iterator[list[Way]]:
    with _Processes(folder) as processes:
        for number in range(count):
            flags = ["--name", f"tone-{number}", "--slots", str(slots), "--max-jobs", str(max_jobs)]
            port = free_port()
            command = [sys.executable, str(ROOT / "scripts/tone_worker.py"), "--port", str(port), *flags]
            processes.start(f"tone-{number}", port, command)
        for way in processes.ways:
            processes.wait_ready(way)
        yield processes.ways


@contextmanager
def balancer(folder: Path, workers: Sequence[Way], tree: Path, settings: Mapping[str, str]) -> Iterator[Way]:
    """The balancer of the checkout `tree` over these workers, once it knows that all are ready. Its log is a file."""
    port = free_port()
    environment = {
        "PYTHONPATH": str(tree),
        "BALANCER_PORT": str(port),
        "BALANCER_WORKERS": ",".join(way.url for way in workers),
        "BALANCER_LOG_LEVEL": "info",
        **{f"BALANCER_{name.upper()}": value for name, value in settings.items()},
    }
    with _Processes(folder) as processes:
        way = processes.start("balancer", port, [sys.executable, "-P", "-m", "balancer"], environment)
        processes.wait_ready(way, workers=len(workers))
        yield way


def idle_again(way: Way, limit_s: float) -> float | None:
    """Seconds until the balancer counts nothing in flight; None if it never does."""
    began = time.monotonic()
    while time.monotonic() < began + limit_s:
        if _total(way, "in_flight") == 0:
            return round(time.monotonic() - began, 2)
        time.sleep(0.1)
    return None


def installed() -> dict[str, str]:
    """The reference proxies that this machine has, with their versions."""
    found = {}
    for name in ("haproxy", "nginx"):
        if (program := shutil.which(name, path=_PATH)) is not None:
            said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
            version = re.search(r"\d+\.\d+[^\s]*", said.stdout + said.stderr)
            found[name] = version[0] if version else "unknown"
    return found


@contextmanager
def haproxy(folder: Path, workers: Sequence[Way]) -> Iterator[Way]:
    servers = "\n".join(f"    server {way.name} {HOST}:{way.port}" for way in workers)
    port = free_port()
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(host=HOST, port=port, servers=servers, idle=_IDLE_S))
    with _Processes(folder) as processes:
        way = processes.start("haproxy", port, [_program("haproxy"), "-f", str(folder / "haproxy.cfg")])
        processes.wait_ready(way)
        yield way


@contextmanager
def nginx(folder: Path, workers: Sequence[Way]) -> Iterator[Way]:
    servers = "\n".join(f"        server {HOST}:{way.port};" for way in workers)
    port = free_port()
    # Started as root, nginx would give its work to a user who cannot enter a temporary directory of root's.
    user = "user root;\n" if os.geteuid() == 0 else ""
    text = _NGINX.format(user=user, host=HOST, port=port, servers=servers, idle=_IDLE_S, files=9000)
    (folder / "nginx.conf").write_text(text)
    command = [_program("nginx"), "-p", str(folder), "-e", str(folder / "error.log"), "-c", "nginx.conf"]
    with _Processes(folder) as processes:
        way = processes.start("nginx", port, command)
        processes.wait_ready(way)
        yield way


REFERENCES = {"haproxy": haproxy, "nginx": nginx}


def free_port() -> int:
    """Below the range that the kernel gives to outgoing connections, which would take it at any moment."""
    while True:
        port = random.randrange(12_000, 30_000)  # noqa: S311 - no secret
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def _program(name: str) -> str:
    return shutil.which(name, path=_PATH) or name


class Shares:
    """In cores, since this was made: what a way, the workers and this program took, and what nobody on the machine did.

    Little of the latter says that a way may have waited for a core, whatever it took.
    """

    def __init__(self, way: Way, tones: Sequence[Way]) -> None:
        self._way, self._tones = way, tones
        self._before = self._taken()

    def _taken(self) -> list[float]:
        tones = sum(tone.cpu_s() for tone in self._tones)
        return [time.monotonic(), self._way.cpu_s(), time.process_time(), tones, psutil.cpu_times().idle]

    def now(self) -> dict[str, float]:
        seconds, *taken = (after - before for before, after in zip(self._before, self._taken(), strict=True))
        names = ("cpu", "client_cpu", "workers_cpu", "idle_cpu")
        return {name: round(each / seconds, 4) for name, each in zip(names, taken, strict=True)}


class _Processes:
    """Children with a log file each, stopped together."""

    def __init__(self, folder: Path) -> None:
        self.ways: list[Way] = []
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            child.terminate()
        for child in self._children:
            try:
                child.wait(_STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def start(self, name: str, port: int, command: list[str], environment: Mapping[str, str] | None = None) -> Way:
        with self._log(name).open("wb") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        self._children.append(child)
        self.ways.append(Way(name, port, psutil.Process(child.pid)))
        return self.ways[-1]

    def wait_ready(self, way: Way, *, workers: int = 0) -> None:
        """Until `/ready` is answered with 200 and so many `workers` are ready. Raises `NotStarted`."""
        child = self._children[self.ways.index(way)]
        deadline = time.monotonic() + _START_LIMIT_S
        while child.poll() is None and time.monotonic() < deadline:
            with suppress(httpx2.HTTPError):
                ready = _HTTP.get(f"{way.url}/ready").status_code == 200
                if ready and (not workers or _total(way, "ready") == workers):
                    return
            time.sleep(0.05)
        said = self._log(way.name).read_text(errors="replace")[-2000:]
        raise NotStarted(f"{way.name} did not come up: {said}")

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def _total(way: Way, name: str) -> int:
    return int(_HTTP.get(f"{way.url}/stats").json()["totals"][name])
