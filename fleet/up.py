"""`scripts/up`: starts one worker per visible GPU, or two on the CPU, and the balancer; stops them all when it ends."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from fleet.contract import BalancerHealth, WorkerHealth
from fleet.devices import visible_gpus
from fleet.server import bind
from fleet.startup_errors import InvalidSettings, StartupError
from fleet.supervisor import Program, Supervisor

M = TypeVar("M", bound=BaseModel)

_HOST = "127.0.0.1"
_DEFAULT_PORT = 6095
_FIRST_WORKER_OFFSET = 5
"""The first worker listens this far above the balancer: 6100 for the default 6095."""

_CPU_WORKERS = 2
_START_LIMIT_S = 900.0
_STOP_GRACE_S = 15.0
_TICK_S = 0.1

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Past whatever proxy the environment names: our own children are asked directly."""


class _Stopped(BaseException):
    """A signal asked us to end; raised wherever the main thread happens to be."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with _only_one(options.data):
            _run(options)
    except _Stopped:
        print("stopped", flush=True)
        return 0
    except StartupError as error:
        print(f"error: {error.message}", file=sys.stderr, flush=True)
        return 1
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/up", description="Start the whole fleet on this machine.")
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT, help="the balancer's port; workers follow 5 above")
    parser.add_argument("--workers", type=int, help="how many; default: one per GPU, or two on the CPU")
    # What the environment sets holds unless a flag says otherwise.
    engine, device = (os.environ.get(f"CHATTERBOX_{name}", "auto") for name in ("ENGINE", "DEVICE"))
    parser.add_argument("--engine", choices=("auto", "espeak", "chatterbox"), default=engine)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default=device)
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the fleet keeps its files and logs")
    parser.add_argument("--checkpoint", help="directory of the Chatterbox model, or hub:OWNER/NAME@COMMIT")
    options = parser.parse_args(arguments)
    if options.workers is not None and not 1 <= options.workers <= 64:
        parser.error("--workers must be between 1 and 64")
    if not 1 <= options.port <= 65535 - _FIRST_WORKER_OFFSET - 64:
        parser.error("--port must leave room for the workers above it: at most 65466")
    return options


@contextmanager
def _only_one(data: Path) -> Iterator[None]:
    """Hold the data directory, so that two fleets never write the same files."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "fleet.lock").open("w")
    except OSError as error:
        raise InvalidSettings(f"--data {data} cannot be used: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidSettings(f"another fleet already runs on {data}; give this one its own --data") from None
        yield


def _run(options: argparse.Namespace) -> None:
    programs = plan(options)
    worker_ports = [int(program.environment["CHATTERBOX_PORT"]) for program in programs[:-1]]
    for port in (options.port, *worker_ports):
        bind(_HOST, port).close()
    supervisor = Supervisor(options.data / "logs")
    try:
        supervisor.start(programs)
        workers = _wait_until_ready(supervisor, options.port, worker_ports)
        print(_announcement(workers, worker_ports, options), flush=True)
        while True:
            time.sleep(_TICK_S)
            for told in supervisor.revive():
                print(told, file=sys.stderr, flush=True)
    finally:
        _ignore_signals()
        supervisor.stop(_STOP_GRACE_S)


def plan(options: argparse.Namespace) -> list[Program]:
    """The workers, each pinned to a GPU where there are any, and the balancer last."""
    gpus = [] if options.engine == "espeak" or options.device == "cpu" else visible_gpus()
    ports = range(options.port + _FIRST_WORKER_OFFSET, 65536)
    programs = []
    on_cpu = 1 if options.engine == "chatterbox" else _CPU_WORKERS  # one model takes all cores
    for index in range(options.workers or len(gpus) or on_cpu):
        name = f"gpu{index}" if gpus and len(gpus) >= (options.workers or 0) else f"worker-{index}"
        environment = {
            "CHATTERBOX_NAME": name,
            "CHATTERBOX_HOST": _HOST,
            "CHATTERBOX_PORT": str(ports[index]),
            "CHATTERBOX_ENGINE": options.engine,
            "CHATTERBOX_DEVICE": options.device,
        }
        if "CHATTERBOX_DATA_DIR" not in os.environ:
            environment["CHATTERBOX_DATA_DIR"] = str(options.data)
        if options.checkpoint is not None:
            environment["CHATTERBOX_CHECKPOINT"] = options.checkpoint
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = gpus[index % len(gpus)]
        programs.append(Program(name, "workers", environment))
    urls = ",".join(f"http://{_HOST}:{program.environment['CHATTERBOX_PORT']}" for program in programs)
    balancer = {"BALANCER_HOST": _HOST, "BALANCER_PORT": str(options.port), "BALANCER_WORKERS": urls}
    return [*programs, Program("balancer", "balancer", balancer)]


def _wait_until_ready(supervisor: Supervisor, port: int, worker_ports: Sequence[int]) -> list[WorkerHealth]:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        supervisor.require_alive()
        balancer = _health(port, BalancerHealth)
        if balancer is not None and balancer.ready == len(worker_ports):
            workers = [_health(worker, WorkerHealth) for worker in worker_ports]
            return [health for health in workers if health is not None]
        time.sleep(_TICK_S)
    raise StartupError(f"the fleet was not ready within {_START_LIMIT_S:g} s; its logs say how far it came")


def _health(port: int, model: type[M]) -> M | None:
    """What a server tells of itself, keys or no keys."""
    try:
        with _DIRECT.open(f"http://{_HOST}:{port}/health", timeout=2) as answer:
            return model.model_validate(json.load(answer))
    except (OSError, urllib.error.URLError, ValidationError):
        return None


def _announcement(health: Sequence[WorkerHealth], ports: Sequence[int], options: argparse.Namespace) -> str:
    engines = ", ".join(sorted({f"{worker.engine} ({worker.model})" for worker in health}))
    devices = ", ".join(sorted({worker.device for worker in health}))
    lines = [
        f"ready: http://{_HOST}:{options.port}",
        f"  engine   {engines}",
        f"  device   {devices}",
        f"  workers  {len(health)}: {', '.join(f'http://{_HOST}:{port}' for port in ports)}",
        f"  logs     {options.data / 'logs'}",
    ]
    if any(worker.demo_voice for worker in health):
        lines.append("  note     this is the embedded demo voice, not Chatterbox")
    return "\n".join(lines)


def _stop(*_: object) -> None:
    raise _Stopped


def _ignore_signals() -> None:
    """Let the children end in peace; a supervisor killed outright still takes them along."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
