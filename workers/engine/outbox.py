"""One job's way from an engine's thread to the event loop that reads it."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from fleet.errors import FleetError
from workers.engine.base import Pause, Samples, Sound


class Outbox:
    """Sound put in by one thread and read, joined into larger pieces when it has piled up, on an event loop.

    Made on the loop that reads. `on_read` is called there after each read, so that the engine may go on.
    """

    def __init__(self, *, chunk_limit: int, on_read: Callable[[], None]) -> None:
        self._chunk_limit = chunk_limit
        self._on_read = on_read
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._lock = threading.Lock()
        self._sound: deque[Sound] = deque()
        self._buffered = 0
        self._ended = False
        self._error: FleetError | None = None

    @property
    def buffered(self) -> int:
        """Samples put and not yet read."""
        with self._lock:
            return self._buffered

    def put(self, sound: Sound) -> None:
        """Add sound; from any thread."""
        with self._lock:
            self._sound.append(sound)
            self._buffered += len(sound)
        self._wake()

    def end(self, error: FleetError | None = None) -> None:
        """Nothing more will come, because of `error` if there is one; from any thread. Only the first call counts."""
        with self._lock:
            if self._ended:
                return
            self._ended, self._error = True, error
        self._wake()

    async def read(self) -> Sound | None:
        """A pause, or at most about `chunk_limit` samples; None at the end. Raises the error it was ended with."""
        while True:
            with self._lock:
                self._arrived.clear()
                pieces: list[Samples] = []
                pause: Pause | None = None
                total = 0
                while self._sound and total < self._chunk_limit:
                    piece = self._sound[0]
                    if isinstance(piece, Pause) and pieces:
                        break
                    self._sound.popleft()
                    total += len(piece)
                    if isinstance(piece, Pause):
                        pause = piece
                        break
                    pieces.append(piece)
                self._buffered -= total
                ended, error = self._ended, self._error
            if pieces or pause is not None:
                self._on_read()
                return np.concatenate(pieces) if pause is None else pause
            if error is not None:
                raise error
            if ended:
                return None
            await self._arrived.wait()

    def _wake(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)
