"""One request on its way through: where it has been and how long each part took, for the figures and the log."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from balancer.worker import Worker
from fleet.asgi import ClientGone, CutShort
from fleet.errors import DeadlineExceeded, FleetError, Overloaded


class Passage:
    """Seconds since the request's acceptance; None for what has not happened."""

    def __init__(self) -> None:
        self.tried: list[Worker] = []
        self.outcome = "failed"  # until something better is known
        self.queued_s: float | None = None
        self.first_byte_s: float | None = None
        self.bytes_sent = 0
        self._began_at = time.monotonic()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._began_at

    @property
    def worker_name(self) -> str:
        return self.tried[-1].name if self.tried else "none"

    def placed(self, worker: Worker) -> None:
        """A worker is asked."""
        self.tried.append(worker)
        if self.queued_s is None:
            self.queued_s = self.age_s

    def answered(self, status: int) -> None:
        """The first chunk is here."""
        self.first_byte_s = self.age_s
        self.outcome = "ok" if status < 400 else "refused" if status < 500 else "failed"

    def sent(self, count: int) -> None:
        self.bytes_sent += count

    def ended_by(self, error: BaseException) -> None:
        """It did not end well."""
        match error:
            case ClientGone():
                self.outcome = "client_gone"
            case CutShort():
                self.outcome = "cut_short"
            case asyncio.CancelledError() | DeadlineExceeded():
                self.outcome = "deadline"  # what else cancels a request is the end of the process
            case Overloaded():
                self.outcome = "overloaded"
            case FleetError():
                self.outcome = "unserved" if error.status >= 500 else "refused"
            case _:
                self.outcome = "failed"

    def told(self) -> dict[str, Any]:
        """For the log's line."""
        timings = {"queue_ms": self.queued_s, "first_byte_ms": self.first_byte_s}
        told = {name: round(seconds * 1000, 1) for name, seconds in timings.items() if seconds is not None}
        return {"worker": self.worker_name, "attempts": len(self.tried), **told}
