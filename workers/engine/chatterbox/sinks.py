"""Where a job's sound goes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from fleet.errors import FleetError
from workers.engine.base import Samples, Sound, rendered


class Sink(Protocol):
    """Where a job's sound goes; `end` follows it, with the error that cut it short if there was one."""

    @property
    def buffered(self) -> int: ...

    def put(self, sound: Sound) -> None: ...

    def end(self, error: FleetError | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class _End:
    error: FleetError | None


class Collector:
    """A sink read by the thread that waits for the sound; it never holds the engine back."""

    buffered = 0

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Samples | _End] = queue.SimpleQueue()

    def put(self, sound: Sound) -> None:
        if len(sound):  # a pause may have no length
            self._queue.put(rendered(sound))

    def end(self, error: FleetError | None = None) -> None:
        self._queue.put(_End(error))

    def __iter__(self) -> Iterator[Samples]:
        while True:
            found = self._queue.get()
            if not isinstance(found, _End):
                yield found
            elif found.error is None:
                return
            else:
                raise found.error


class FirstSound:
    """A sink that only wants to know when sound comes."""

    buffered = 0

    def __init__(self) -> None:
        self.arrived = threading.Event()
        self.ended = threading.Event()
        self.error: FleetError | None = None

    def put(self, sound: Sound) -> None:  # noqa: ARG002 - how it sounds does not matter
        self.arrived.set()

    def end(self, error: FleetError | None = None) -> None:
        self.error = error
        self.arrived.set()
        self.ended.set()
