"""`scripts/manage`: the fleet of this machine by plain commands, or by a menu where none is given."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fleet import manage_menu
from fleet.cli_workers import drain_worker, restart_rolling, resume_worker
from fleet.client import FleetClient
from fleet.errors import FleetError
from fleet.fleet_table import table
from fleet.installed import InstalledFleet
from fleet.processes import Processes
from fleet.units import Units, are_installed

_WAIT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    options, given = parser.parse_known_args(arguments)
    if given and options.command not in ("start", "restart"):
        parser.error(f"unrecognized arguments: {' '.join(given)}")
    options.flags = given
    by_systemd = options.over == "systemd" or (options.over == "auto" and are_installed())
    fleet: InstalledFleet = Units() if by_systemd else Processes(options.data)
    if options.command is None:
        return manage_menu.serve(fleet, lambda words: _one(parser, fleet, words))
    return _do(fleet, options)


def _one(parser: argparse.ArgumentParser, fleet: InstalledFleet, words: Sequence[str]) -> int:
    """What a line of the menu stands for."""
    options = parser.parse_args(words)
    options.flags = []
    return _do(fleet, options)


def _do(fleet: InstalledFleet, options: argparse.Namespace) -> int:
    try:
        return _COMMANDS[options.command](fleet, options)
    except FleetError as error:
        print(f"error: {error.message}", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"error: {error.filename or 'failed'}: {error.strerror}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        return 130
    return 1


def _start(fleet: InstalledFleet, options: argparse.Namespace) -> int:
    if fleet.start(options.flags):
        print(f"started by {fleet.kept_by}", flush=True)
        return 0
    print("it runs already", flush=True)
    return 0 if not options.flags else _refuse_flags()


def _refuse_flags() -> int:
    print("error: the flags change nothing now; restart takes them", file=sys.stderr, flush=True)
    return 1


def _stop(fleet: InstalledFleet, _: argparse.Namespace) -> int:
    print("stopped" if fleet.stop() else "nothing ran", flush=True)
    return 0


def _restart(fleet: InstalledFleet, options: argparse.Namespace) -> int:
    fleet.restart(options.flags)
    print(f"restarted by {fleet.kept_by}", flush=True)
    return 0


def _rolling_restart(fleet: InstalledFleet, options: argparse.Namespace) -> int:
    with FleetClient(fleet.url) as client:
        restart_rolling(client, options.names, options.timeout)
    return 0


def _status(fleet: InstalledFleet, _: argparse.Namespace) -> int:
    rows = fleet.rows()
    if not rows:
        print(f"stopped; {fleet.kept_by} would keep it", flush=True)
        return 1
    print(table(rows), flush=True)
    return 0 if any(row.speaks() for row in rows) else 1


def _logs(fleet: InstalledFleet, options: argparse.Namespace) -> int:
    return fleet.show_logs(options.name, follow=options.follow, lines=options.lines)


def _drain(fleet: InstalledFleet, options: argparse.Namespace) -> int:
    with FleetClient(fleet.url) as client:
        drain_worker(client, options.name, wait=options.wait, timeout_s=options.timeout, back="scripts/manage resume")
    return 0


def _resume(fleet: InstalledFleet, options: argparse.Namespace) -> int:
    with FleetClient(fleet.url) as client:
        resume_worker(client, options.name)
    return 0


_COMMANDS = {
    "start": _start,
    "stop": _stop,
    "restart": _restart,
    "rolling-restart": _rolling_restart,
    "status": _status,
    "logs": _logs,
    "drain": _drain,
    "resume": _resume,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/manage",
        description="Look after the fleet of this machine; without a command, by a menu.",
        epilog="A fleet with keys wants an administrator's in FLEET_API_KEY.",
    )
    parser.add_argument(
        "--over", choices=("auto", "systemd", "processes"), default="auto", help="default: systemd where it has units"
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="where the processes keep their files and logs")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    passed = "flags of scripts/up may follow; without any, those of the last start hold"
    commands.add_parser("start", help="start the fleet and hear it speak", epilog=passed)
    commands.add_parser("stop", help="stop all of it")
    commands.add_parser("restart", help="stop all of it and start it again; requests fail meanwhile", epilog=passed)
    rolling = commands.add_parser("rolling-restart", help="restart one worker after the other; no request fails")
    rolling.add_argument("names", metavar="NAME", nargs="*", help="workers, as status shows them; default: all")
    commands.add_parser("status", help="show what runs; the exit code is 1 when no worker is ready")
    logs = commands.add_parser("logs", help="show the last lines of all logs, or of one")
    logs.add_argument("name", metavar="NAME", nargs="?", help="a worker, or balancer")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until Ctrl-C")
    logs.add_argument("-n", "--lines", type=int, default=50, help="how many; default: 50")
    drain = commands.add_parser("drain", help="give a worker no new requests; it finishes those it has")
    drain.add_argument("name", metavar="NAME")
    drain.add_argument("--no-wait", dest="wait", action="store_false", help="return before it is idle")
    resume = commands.add_parser("resume", help="give a drained worker requests again")
    resume.add_argument("name", metavar="NAME")
    for waiting in (rolling, drain):
        waiting.add_argument("--timeout", type=float, default=_WAIT_S, help="seconds to wait for each worker")
    return parser


if __name__ == "__main__":
    sys.exit(main())
