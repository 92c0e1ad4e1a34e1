"""What makes a fleet on one machine: the flags of `scripts/up`, and the programs that they ask for."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from fleet.devices import visible_gpus
from fleet.supervisor import Program

HOST = "127.0.0.1"
_DEFAULT_PORT = 6095
_FIRST_WORKER_OFFSET = 5
"""The first worker listens this far above the balancer: 6100 for the default 6095."""

_CPU_WORKERS = 2

BALANCER = "balancer"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/up", description="Start the whole fleet on this machine.")
    parser.add_argument("--port", type=int, default=_DEFAULT_PORT, help="the balancer's port; workers follow 5 above")
    parser.add_argument("--workers", type=int, help="how many; default: one per GPU, or two on the CPU")
    # What the environment sets holds unless a flag says otherwise.
    engine, device = (os.environ.get(f"CHATTERBOX_{name}", "auto") for name in ("ENGINE", "DEVICE"))
    parser.add_argument("--engine", choices=("auto", "espeak", "chatterbox"), default=engine)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default=device)
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the fleet keeps its files and logs")
    parser.add_argument("--checkpoint", help="directory of the Chatterbox model, or hub:OWNER/NAME@COMMIT")
    parser.add_argument(
        "--production",
        action="store_true",
        help="in the background: replaces what an earlier --production started, checks that it speaks, and leaves it",
    )
    parser.add_argument("--supervise", action="store_true", help=argparse.SUPPRESS)  # what --production leaves behind
    options = parser.parse_args(arguments)
    if options.workers is not None and not 1 <= options.workers <= 64:
        parser.error("--workers must be between 1 and 64")
    if not 1 <= options.port <= 65535 - _FIRST_WORKER_OFFSET - 64:
        parser.error("--port must leave room for the workers above it: at most 65466")
    return options


def flags(options: argparse.Namespace) -> list[str]:
    """The flags that mean the same from any directory and in any environment."""
    given = ["--port", str(options.port), "--engine", options.engine, "--device", options.device]
    given += ["--data", str(options.data.resolve())]
    if options.workers is not None:
        given += ["--workers", str(options.workers)]
    if options.checkpoint is not None:
        directory = Path(options.checkpoint)
        given += ["--checkpoint", str(directory.resolve()) if directory.is_dir() else options.checkpoint]
    return given


def port_of(program: Program) -> int:
    """Where it listens."""
    return int(program.environment["BALANCER_PORT" if program.name == BALANCER else "CHATTERBOX_PORT"])


def plan(options: argparse.Namespace) -> list[Program]:
    """The workers, each pinned to a GPU where there are any, and the balancer last."""
    gpus = [] if options.engine == "espeak" or options.device == "cpu" else visible_gpus()
    ports = range(options.port + _FIRST_WORKER_OFFSET, 65536)
    programs = []
    in_background = options.production or options.supervise
    kind = "cpu" if in_background else "worker-"
    if gpus:
        kind = "gpu" if len(gpus) >= (options.workers or 0) else "worker-"
    on_cpu = 1 if options.engine == "chatterbox" else _CPU_WORKERS  # one model takes all cores
    for index in range(options.workers or len(gpus) or on_cpu):
        name = f"{kind}{index}"
        environment = {
            "CHATTERBOX_NAME": name,
            "CHATTERBOX_HOST": HOST,
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
        programs.append(Program(name, "workers", environment, f"{name}_server.log" if in_background else f"{name}.log"))
    urls = ",".join(f"http://{HOST}:{program.environment['CHATTERBOX_PORT']}" for program in programs)
    balancer = {"BALANCER_HOST": HOST, "BALANCER_PORT": str(options.port), "BALANCER_WORKERS": urls}
    log = "loadbalancer.log" if in_background else "balancer.log"
    return [*programs, Program(BALANCER, "balancer", balancer, log)]
