"""A program on a terminal of its own, for what is shown only there."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path


class OnTerminal:
    """Runs a command on a pseudo-terminal that is read all the time, so that the program never waits for us."""

    def __init__(self, command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        self.shown = b""
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment, "TERM": "xterm", "COLUMNS": "120"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509 - the child must own the terminal to be sent Ctrl-C by it
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self._ours, 4096)
            except OSError:  # Linux's way of saying that the other side has closed.
                return
            if not part:
                return
            self.shown += part

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def wait(self, limit_s: float = 20) -> int:
        """The exit code, once all that was shown has been read."""
        code = self.process.wait(limit_s)
        self._reader.join(5)
        os.close(self._ours)
        return code


def _take_terminal() -> None:
    # A shell starts its background jobs with Ctrl-C ignored, and our tests may run in one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
