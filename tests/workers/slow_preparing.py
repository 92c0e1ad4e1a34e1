"""`python -m tests.workers.slow_preparing`: a real worker whose engine never ends preparing a voice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from workers.__main__ import main
from workers.engine.base import Conditionals, Recording
from workers.engine.espeak import EspeakEngine


class SlowEngine(EspeakEngine):
    def prepare(self, recordings: Sequence[Recording]) -> Conditionals:
        time.sleep(3600)
        return super().prepare(recordings)


def open_slow(*_: Any, **__: Any) -> SlowEngine:
    return SlowEngine()


if __name__ == "__main__":
    with patch("workers.__main__.open_engine", open_slow):
        main()
