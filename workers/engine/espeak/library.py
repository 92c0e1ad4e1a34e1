"""The owner's end of the speaking process: starts it, sends turns, reads sound, replaces it when it dies."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path

import espeakng_loader
import numpy as np
import numpy.typing as npt
import structlog

from fleet.errors import EngineLost, SynthesisFailed
from fleet.startup_errors import EngineUnavailable
from workers.engine.espeak.speaker import FRAME_LENGTH, TURN_ENDED, TURN_FAILED

log = structlog.get_logger()

_STALL_S = 5.0
"""A turn takes milliseconds; one that is silent for this long has hung."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One piece of text and how to speak it, in espeak's own units."""

    text: str
    voice: str
    pitch: int
    range: int
    rate: int


class _TurnLost(Exception):
    """A turn failed in its fork; the process that forks lives on."""


class _ProcessLost(Exception):
    """The speaking process itself died or hung."""


class EspeakProcess:
    """libespeak-ng in a process of its own. For one thread: it speaks one turn at a time.

    Raises `EngineUnavailable` when the library does not load.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        program = Path(__file__).with_name("speaker.py")
        paths = (espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(program), *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._closed = False
        try:
            description = json.loads(self._read_frame() or b"")
        except (_ProcessLost, ValueError):
            self._kill()
            raise EngineUnavailable("libespeak-ng did not start; the lines above say why") from None
        self.sample_rate: int = description["sample_rate"]
        self.version: str = description["version"]
        self.voice_of: dict[str, str] = description["languages"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def speak(self, turn: Turn) -> Generator[npt.NDArray[np.int16], None, None]:
        """The turn's samples as espeak makes them. To be closed by whoever does not read it to its end.

        Raises `SynthesisFailed` when the text crashed the library, and `EngineLost` when the process died or hung;
        the next turn starts it anew.
        """
        if self._process.poll() is not None:  # It ended with the last turn, or while idle; this one loses nothing.
            self._restart()
        in_step = False
        try:
            self._send(json.dumps(asdict(turn)).encode() + b"\n")
            while frame := self._read_frame():
                yield np.frombuffer(frame, np.int16)
            in_step = True
        except _TurnLost as lost:
            in_step = True
            raise SynthesisFailed(str(lost)) from None
        except _ProcessLost as lost:
            raise EngineLost(str(lost), retry_after=1) from None
        finally:
            if not in_step:  # What is left of this turn must never be heard as the next one.
                self.close()

    def _send(self, request: bytes) -> None:
        assert self._process.stdin is not None
        try:
            while request:
                request = request[self._process.stdin.write(request) :]
        except BrokenPipeError:
            raise _ProcessLost("the embedded voice died") from None

    def _read_frame(self) -> bytes:
        """The next frame, or nothing at the end of a turn."""
        length = FRAME_LENGTH.unpack(self._read(FRAME_LENGTH.size))[0]
        if length == TURN_FAILED:
            raise _TurnLost("the embedded voice crashed on this text")
        return b"" if length == TURN_ENDED else self._read(length)

    def _read(self, count: int) -> bytes:
        assert self._process.stdout is not None
        data = b""
        while len(data) < count:
            readable, _, _ = select.select([self._process.stdout], [], [], _STALL_S)
            part = os.read(self._process.stdout.fileno(), count - len(data)) if readable else b""
            if not part:
                raise _ProcessLost("the embedded voice died" if readable else "the embedded voice hung")
            data += part
        return data

    def _restart(self) -> None:
        self.close()
        try:
            self._start()
        except (EngineUnavailable, OSError) as error:
            raise EngineLost(f"the embedded voice cannot be started again: {error}", retry_after=1) from None
        log.warning("espeak_restarted", pid=self._process.pid)

    def _kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            log.debug("espeak_already_gone", pid=self._process.pid)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._closed = True

    def close(self) -> None:
        """End the process. May be called twice; the next turn would start it anew."""
        if not self._closed:
            self._kill()
