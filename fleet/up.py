"""`scripts/up`: starts one worker per visible GPU, or two on the CPU, and the balancer; stops them all when it ends."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence

from fleet import production
from fleet.contract import BalancerHealth, WorkerHealth
from fleet.own_health import health
from fleet.run_state import only_one
from fleet.server import bind
from fleet.startup_errors import StartupError
from fleet.supervisor import Supervisor, signals_ignored
from fleet.up_plan import HOST, parse, plan, port_of

_START_LIMIT_S = 900.0
_STOP_GRACE_S = 15.0
_TICK_S = 0.1


class _Stopped(BaseException):
    """A signal asked us to end; raised wherever the main thread happens to be."""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        if options.production:
            production.launch(options)
        elif options.supervise:
            production.supervise(options)
        else:
            with only_one(options.data):
                _run(options)
    except _Stopped:
        print("stopped", flush=True)
        return 130 if options.production else 0
    except StartupError as error:
        print(f"error: {error.message}", file=sys.stderr, flush=True)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    programs = plan(options)
    worker_ports = [port_of(program) for program in programs[:-1]]
    for port in (options.port, *worker_ports):
        bind(HOST, port).close()
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
        with signals_ignored():
            supervisor.stop(_STOP_GRACE_S)


def _wait_until_ready(supervisor: Supervisor, port: int, worker_ports: Sequence[int]) -> list[WorkerHealth]:
    deadline = time.monotonic() + _START_LIMIT_S
    while time.monotonic() < deadline:
        supervisor.require_alive()
        balancer = health(port, BalancerHealth)
        if balancer is not None and balancer.ready == len(worker_ports):
            workers = [health(worker, WorkerHealth) for worker in worker_ports]
            return [told for told in workers if told is not None]
        time.sleep(_TICK_S)
    raise StartupError(f"the fleet was not ready within {_START_LIMIT_S:g} s; its logs say how far it came")


def _announcement(told: Sequence[WorkerHealth], ports: Sequence[int], options: argparse.Namespace) -> str:
    engines = ", ".join(sorted({f"{worker.engine} ({worker.model})" for worker in told}))
    devices = ", ".join(sorted({worker.device for worker in told}))
    lines = [
        f"ready: http://{HOST}:{options.port}",
        f"  engine   {engines}",
        f"  device   {devices}",
        f"  workers  {len(told)}: {', '.join(f'http://{HOST}:{port}' for port in ports)}",
        f"  logs     {options.data / 'logs'}",
    ]
    if any(worker.demo_voice for worker in told):
        lines.append("  note     this is the embedded demo voice, not Chatterbox")
    return "\n".join(lines)


def _stop(*_: object) -> None:
    raise _Stopped


if __name__ == "__main__":
    sys.exit(main())
