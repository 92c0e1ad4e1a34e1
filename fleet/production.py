"""`scripts/up --production`: a fleet in the background, and the supervisor that stays with it."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from fleet.client import KEY_VARIABLE, FleetClient
from fleet.contract import SAMPLE_RATE, AudioFormat, BalancerHealth, WorkerHealth
from fleet.errors import FleetError, Unauthorized
from fleet.fleet_table import running_rows, table
from fleet.own_health import health
from fleet.run_state import ChildRecord, ProcessIdentity, RunState, only_one, read_state, stop_recorded
from fleet.server import bind
from fleet.speech_contract import SynthesisRequest
from fleet.startup_errors import ChildDied, InvalidSettings, StartupError
from fleet.supervisor import Program, Supervisor, rotate, signals_ignored
from fleet.up_plan import BALANCER, HOST, flags, plan, port_of

SUPERVISOR = "supervisor"
SUPERVISOR_LOG = "supervisor.log"
STARTING_LOCK = "starting.lock"
BEING_CHANGED = "another start or stop is under way on {data}"

_START_LIMIT_S = 900.0
_STOP_GRACE_S = 15.0
REPLACE_GRACE_S = 20.0
"""Longer than the supervisor takes to end its children."""

_TICK_S = 0.1
_TRIAL_TEXT = "The fleet is ready to speak."
_LEAST_TRIAL_S = 0.3
"""Seconds of sound that the trial's words take at least."""

_LAST_LINES = 15


def launch(options: argparse.Namespace) -> None:
    """Replace the fleet of this data directory by a new one, hear it speak, say what runs, and leave it running.

    Raises `StartupError` with the log's last lines; nothing of the new fleet is left then.
    """
    with only_one(options.data, STARTING_LOCK, BEING_CHANGED):
        before = read_state(options.data)
        if before is not None and stop_recorded(before, REPLACE_GRACE_S):
            print("stopped the fleet that ran before", flush=True)
        supervisor = _start_supervisor(options)
        try:
            state = _wait_until_running(options.data, supervisor)
            seconds, sound_s = _hear(state.url)
        except BaseException:
            with signals_ignored():
                _stop_new(options.data, supervisor)
            _tell_last_lines(options.data, supervisor.pid)
            raise
    print(table(running_rows(state)))
    print(f"spoke {sound_s:.1f} s of sound in {seconds:.1f} s through {state.url}")
    print(f"logs in {options.data / 'logs'}; scripts/manage looks after it", flush=True)


def _start_supervisor(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    log_path = options.data / "logs" / SUPERVISOR_LOG
    command = [sys.executable, "-P", "-m", "fleet.up", "--supervise", *flags(options)]
    try:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        rotate(log_path)
        with log_path.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=os.environ
            )
    except OSError as error:
        raise InvalidSettings(f"cannot write logs to {log_path.parent}: {error.strerror}") from None


def _wait_until_running(data: Path, supervisor: subprocess.Popen[bytes]) -> RunState:
    log = data / "logs" / SUPERVISOR_LOG
    while True:
        ended = supervisor.poll() is not None
        state = read_state(data)
        if state is not None and state.supervisor.pid == supervisor.pid:
            if state.phase == "running":
                return state
            if state.phase == "failed" and ended:
                raise StartupError(state.error or "the start failed")
        if ended:
            words = _last_lines(log) or [f"the supervisor ended with code {supervisor.returncode}"]
            raise StartupError(words[-1].removeprefix("error: "))
        time.sleep(_TICK_S)


def _tell_last_lines(data: Path, supervisor: int) -> None:
    """Of the log of what failed, else of the supervisor's own."""
    state = read_state(data)
    ours = state is not None and state.supervisor.pid == supervisor
    log = (state.failed_log if state is not None and ours else None) or data / "logs" / SUPERVISOR_LOG
    print(f"last lines of {log}:", *(f"  {line}" for line in _last_lines(log)), sep="\n", file=sys.stderr)


def _last_lines(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    except OSError:
        return []


def _hear(url: str) -> tuple[float, float]:
    """Seconds that a real synthesis through the balancer took, and seconds of sound that came of it."""
    request = SynthesisRequest(text=_TRIAL_TEXT, format=AudioFormat.pcm)
    began_at = time.monotonic()
    try:
        with FleetClient(url) as client, client.speak(request) as speech:
            sound = b"".join(speech.pieces)
    except Unauthorized:
        raise StartupError(f"the fleet runs, but wants a key to speak: set {KEY_VARIABLE} to one of its own") from None
    except FleetError as error:
        raise StartupError(f"the fleet does not speak: {error.message}") from None
    sound_s = len(sound) / 2 / SAMPLE_RATE  # 16-bit samples
    if sound_s < _LEAST_TRIAL_S or not any(sound):
        raise StartupError(f"the fleet does not speak: {sound_s:.2f} s of {'sound' if any(sound) else 'silence'} came")
    return time.monotonic() - began_at, sound_s


def _stop_new(data: Path, supervisor: subprocess.Popen[bytes]) -> None:
    state = read_state(data)
    if state is not None and state.supervisor.pid == supervisor.pid:
        stop_recorded(state, REPLACE_GRACE_S)
    elif supervisor.poll() is None:
        supervisor.terminate()
    supervisor.wait()


def supervise(options: argparse.Namespace) -> None:
    """Start the workers, then the balancer; start again what dies, until a signal comes. Raises `StartupError`."""
    with only_one(options.data):
        programs = plan(options)
        for program in programs:
            bind(HOST, port_of(program)).close()
        state = RunState(
            phase="starting", supervisor=ProcessIdentity.of(os.getpid()), port=options.port, flags=flags(options)
        )
        supervisor = Supervisor(options.data / "logs")
        try:
            _start(supervisor, programs, state, options.data)
            while True:
                time.sleep(_TICK_S)
                for told in supervisor.revive():
                    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {told}", flush=True)
                _record(supervisor, programs, state, options.data)
        except StartupError as error:
            dead = supervisor.dead()
            state.phase, state.error = "failed", error.message
            state.failed_log = state.failed_log if dead is None else dead.log_path
            raise
        finally:
            with signals_ignored():
                supervisor.stop(_STOP_GRACE_S)
                state.phase = "failed" if state.phase == "failed" else "stopped"
                state.write(options.data)


def _start(supervisor: Supervisor, programs: list[Program], state: RunState, data: Path) -> None:
    state.write(data)
    deadline = time.monotonic() + _START_LIMIT_S
    for group in (programs[:-1], programs[-1:]):
        supervisor.start(group)
        _record(supervisor, programs, state, data)
        for program in group:
            while (lacks := _lacks(program, len(programs) - 1)) is not None:
                supervisor.require_alive()
                if time.monotonic() > deadline:
                    state.failed_log = data / "logs" / program.log
                    raise ChildDied(f"{program.name} was not ready within {_START_LIMIT_S:g} s: {lacks}")
                time.sleep(_TICK_S)
    state.phase = "running"
    state.write(data)


def _lacks(program: Program, workers: int) -> str | None:
    """Why a program is not ready; none when it is."""
    if program.name == BALANCER:
        balancer = health(port_of(program), BalancerHealth)
        if balancer is None:
            return "it does not answer"
        return None if balancer.ready == workers else f"it finds {balancer.ready} of {workers} workers ready"
    worker = health(port_of(program), WorkerHealth)
    if worker is None:
        return "it does not answer"
    return None if worker.ready else worker.reason or "it says no reason"


def _record(supervisor: Supervisor, programs: list[Program], state: RunState, data: Path) -> None:
    """Write down who the children are, where that has changed."""
    ports = {program.name: port_of(program) for program in programs}
    known = {child.name: child.process.pid for child in state.children}
    if known == {child.name: child.pid for child in supervisor.children}:
        return
    state.children = [
        ChildRecord(
            name=child.name,
            process=ProcessIdentity.of(child.pid),
            port=ports[child.name],
            log=child.log_path.resolve(),
        )
        for child in supervisor.children
    ]
    try:
        state.write(data)
    except OSError as error:  # a full disk: the children go on, and it is written with the next change
        print(f"cannot write to {data}: {error.strerror}", flush=True)
