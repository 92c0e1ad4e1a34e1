"""`python -m tests.workers.opening`: a real worker whose engine is opened only after SIGUSR1."""

from __future__ import annotations

import signal
import sys
from typing import Any
from unittest.mock import patch

from workers.__main__ import main
from workers.engine.base import Engine
from workers.engine.choice import open_engine


def open_when_told(*arguments: Any, **options: Any) -> Engine:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    sys.stderr.write("opening\n")
    sys.stderr.flush()
    signal.sigwait({signal.SIGUSR1})
    return open_engine(*arguments, **options)


if __name__ == "__main__":
    with patch("workers.__main__.open_engine", open_when_told):
        main()
