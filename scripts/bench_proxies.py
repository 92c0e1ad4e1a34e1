"""Tone workers and what stands in front of them, as processes: the balancer, HAProxy and nginx."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from bench_fleet import ROOT, cpu_name
from bench_processes import Processes, Way, free_port
from bench_streams import HOST

PACKAGES = ("uvicorn", "starlette", "aiohttp", "httpx2", "uvloop", "httptools")
_IDLE_S = 300
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


@contextmanager
def tone_workers(folder: Path, count: int, *, slots: int = 0, max_jobs: int = 4096) -> Iterator[list[Way]]:
    with Processes(folder) as processes:
        start_tones(processes, count, slots=slots, max_jobs=max_jobs)
        yield processes.ways


def start_tones(processes: Processes, count: int, *, slots: int, max_jobs: int) -> None:
    """So many tone workers, each ready."""
    for number in range(count):
        flags = ["--name", f"tone-{number}", "--slots", str(slots), "--max-jobs", str(max_jobs)]
        port = free_port()
        command = [sys.executable, str(ROOT / "scripts/tone_worker.py"), "--port", str(port), *flags]
        processes.start(f"tone-{number}", port, command)
    for way in processes.ways:
        processes.wait_ready(way)


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
    with Processes(folder) as processes:
        way = processes.start("balancer", port, [sys.executable, "-P", "-m", "balancer"], environment)
        processes.wait_ready(way, workers=len(workers))
        yield way


def installed() -> dict[str, str]:
    """The reference proxies that this machine has, with their versions."""
    found = {}
    for name in ("haproxy", "nginx"):
        if (program := shutil.which(name, path=_PATH)) is not None:
            said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True)
            version = re.search(r"\d+\.\d+[^\s]*", said.stdout + said.stderr)
            found[name] = version[0] if version else "unknown"
    return found


def surroundings(tree: Path) -> dict[str, Any]:
    """When and on what the balancer of the checkout `tree` is measured."""
    describe = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip() or None,
        "hardware": {"cpu": cpu_name(), "cores": os.cpu_count(), "memory_gib": psutil.virtual_memory().total >> 30},
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}, **installed()},
    }


@contextmanager
def haproxy(folder: Path, workers: Sequence[Way]) -> Iterator[Way]:
    servers = "\n".join(f"    server {way.name} {HOST}:{way.port}" for way in workers)
    port = free_port()
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(host=HOST, port=port, servers=servers, idle=_IDLE_S))
    with Processes(folder) as processes:
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
    with Processes(folder) as processes:
        way = processes.start("nginx", port, command)
        processes.wait_ready(way)
        yield way


REFERENCES = {"haproxy": haproxy, "nginx": nginx}


def _program(name: str) -> str:
    return shutil.which(name, path=_PATH) or name
