"""`fleet drain`, `resume` and `restart`: workers taken out, brought back and restarted without losing a request."""

from __future__ import annotations

import ipaddress
import signal
import time
from collections.abc import Callable, Sequence
from typing import Annotated
from urllib.parse import urlsplit

import psutil
import typer

from fleet.client import FleetClient
from fleet.contract import WorkerStats
from fleet.errors import FleetError, InvalidValue, UpstreamTimeout, WorkerNotFound
from fleet.telling import errors_told, tell

_LOOK_EVERY_S = 0.2
_LEARNED_S = 1.5
"""Another balancer has probed by then."""

Name = Annotated[str, typer.Argument(help="A worker's name, as `fleet status` shows it, or its address.")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait for each worker.")]


def drain(
    worker: Name,
    wait: Annotated[bool, typer.Option(help="Return when it has finished what it had.")] = True,
    timeout: Timeout = 600.0,
) -> None:
    """Give a worker no new requests; it finishes those it has."""
    with errors_told(), FleetClient() as client:
        drain_worker(client, worker, wait=wait, timeout_s=timeout, back="fleet resume")


def resume(worker: Name) -> None:
    """Give a drained worker requests again."""
    with errors_told(), FleetClient() as client:
        resume_worker(client, worker)


def restart(
    workers: Annotated[list[str] | None, typer.Argument(help="Their names; default: all of them.")] = None,
    rolling: Annotated[bool, typer.Option("--rolling", help="One after the other; no request is lost.")] = False,
    timeout: Timeout = 600.0,
) -> None:
    """Restart workers of this machine: drained, ended with SIGTERM, started anew by whoever supervises them."""
    with errors_told(), FleetClient() as client:
        if not rolling:
            raise InvalidValue("say --rolling: all workers at once would leave nobody to speak", param="rolling")
        restart_rolling(client, workers or [], timeout)


def drain_worker(client: FleetClient, name: str, *, wait: bool, timeout_s: float, back: str) -> None:
    """Drain a worker and say so; `back` is the command that is told to bring it back. Raises `FleetError`."""
    client.drain(name)
    if wait:
        _until(lambda: _is_idle(_of(client, name)), timeout_s, f"{name} has not finished what it had")
    tell(f"{name} is {'idle' if wait else 'draining'}; {back} {name} brings it back")


def resume_worker(client: FleetClient, name: str) -> None:
    """Resume a worker and say so. Raises `FleetError`."""
    tell(f"{name} is {client.resume(name).state}")


def restart_rolling(client: FleetClient, names: Sequence[str], timeout_s: float) -> None:
    """Restart workers of this machine, all where none is named, each once the one before is back, and say so. Raises
    `FleetError`.
    """
    chosen = [_of(client, name) for name in names] if names else client.stats().workers
    for worker in chosen:
        _require_another(client, worker)
        _restart(client, worker, timeout_s)


def _restart(client: FleetClient, worker: WorkerStats, timeout_s: float) -> None:
    process = _process(worker)
    began_at = time.monotonic()
    client.drain(worker.url)
    try:
        _until(lambda: _is_idle(_of(client, worker.url)), timeout_s, f"{worker.name} has not finished what it had")
    except UpstreamTimeout:
        client.resume(worker.url)
        raise
    try:
        process.send_signal(signal.SIGTERM)
    except psutil.AccessDenied:
        client.resume(worker.url)
        raise InvalidValue(f"{worker.name}'s process {process.pid} is another user's: restart it as that one") from None
    late = f"{worker.name} has not come back: does anything supervise it?"
    _until(lambda: _is_back(client, worker.url, process.pid), timeout_s, late)
    tell(f"{worker.name} restarted in {time.monotonic() - began_at:.1f} s")


def _of(client: FleetClient, name: str) -> WorkerStats:
    everyone = client.stats().workers
    for worker in everyone:
        if name in (worker.name, worker.url, urlsplit(worker.url).netloc):
            return worker
    raise WorkerNotFound(f"there is no worker {name!r}; there are: {', '.join(worker.name for worker in everyone)}")


def _require_another(client: FleetClient, worker: WorkerStats) -> None:
    others = [other for other in client.stats().workers if other.url != worker.url and other.state == "ready"]
    if not others:
        raise InvalidValue(f"no other worker is ready while {worker.name} would be away", param="rolling")


def _is_idle(worker: WorkerStats) -> bool:
    """Nothing is in flight through this balancer, and the worker, asked itself, has nothing for another one: that one
    has had the time to learn that it drains.
    """
    if worker.in_flight or worker.since_s < _LEARNED_S:
        return False
    try:
        with FleetClient(worker.url) as itself:
            health = itself.worker_health()
    except FleetError:  # it is gone, and what it had with it
        return True
    return health.running_jobs + health.queued_jobs == 0


def _is_back(client: FleetClient, url: str, old_pid: int) -> bool:
    try:
        worker = _of(client, url)
    except WorkerNotFound:  # one that registers took its leave, and will come again
        return False
    health = worker.health
    return worker.state == "ready" and health is not None and health.pid != old_pid


def _until(condition: Callable[[], bool], limit_s: float, late: str) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise UpstreamTimeout(f"{late} within {limit_s:g} s")
        time.sleep(_LOOK_EVERY_S)


def _process(worker: WorkerStats) -> psutil.Process:
    """The worker's process, which must be of this machine and listen at its address. Raises `InvalidValue`."""
    host, port = urlsplit(worker.url).hostname or "", urlsplit(worker.url).port
    if worker.health is None or not _is_here(host):
        raise InvalidValue(f"{worker.name} at {worker.url} is no worker of this machine: restart it there")
    try:
        process = psutil.Process(worker.health.pid)
        listens = any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in process.net_connections("tcp")
        )
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        listens = False
    if not listens:
        raise InvalidValue(f"{worker.name} cannot be restarted from here: its process {worker.health.pid} is not ours")
    return process


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
