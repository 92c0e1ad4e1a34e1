"""What a worker tells systemd: whether its engine makes progress, and in one line what it does."""

from __future__ import annotations

from workers.engine.base import Engine
from workers.guard import EngineGuard
from workers.readiness import Patience


class SignOfLife:
    """Judges by the statuses that the guard hears, so that asking never waits for the engine's lock."""

    def __init__(self, engine: Engine, guard: EngineGuard) -> None:
        self._engine, self._guard = engine, guard
        self._silence_s = Patience.with_first_sound_after(engine.capabilities.first_sound_s).silence

    def is_alive(self) -> bool:
        """Whether the engine is at work, or has nothing to do: not while it is lost, mute, or silent for too long."""
        status = self._guard.latest()
        return status is not None and status.ready and status.fatal is None and status.silent_s <= self._silence_s

    def text(self) -> str:
        """Such as "chatterbox on cuda:0, 812 it/s, 3 speaking, 0 waiting"."""
        capabilities, status = self._engine.capabilities, self._guard.latest()
        where = f"{capabilities.engine} on {capabilities.device}"
        if status is None:
            return f"{where}, the engine does not tell its status"
        if not self.is_alive():
            why = status.fatal or status.reason or f"the engine has made no sound for {status.silent_s:.0f} s"
            return f"{where}, {why}"
        figures = self._engine.figures()
        pace = f", {figures.steps_per_s:.0f} it/s" if figures is not None and figures.steps_per_s is not None else ""
        return f"{where}{pace}, {status.running_jobs} speaking, {status.queued_jobs} waiting"
