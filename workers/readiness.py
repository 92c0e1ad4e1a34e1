"""Whether a synthesis would succeed now, known from one that just did."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Self

import structlog

from fleet.contract import Readiness
from fleet.errors import FleetError
from workers.engine.base import Engine, Job

log = structlog.get_logger()

_LONGEST_WAIT_S = 1.5
"""A check waits no longer for a trial: whoever asks, the balancer for one, gives up after 2 to 3 s."""

_UNDER_WAY = "a trial synthesis is under way"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine is given, in seconds: `proof` from one sound to the next trial, `trial` for a trial to sound,
    `silence` for a busy engine to make progress before it is no longer taken at its word.
    """

    proof: float
    trial: float
    silence: float

    @classmethod
    def with_first_sound_after(cls, seconds: float) -> Self:
        """What suits an engine whose first sound takes so long when it has nothing else to do."""
        return cls(proof=max(5.0, 20 * seconds), trial=max(5.0, 5 * seconds), silence=max(2.0, 5 * seconds))


class ReadinessCheck:
    """Speaks one short word when the last proof is old and nothing else is being spoken.

    The trial runs in a task of its own. While it does, an engine that has given proof and no cause for doubt since
    counts as ready.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._patience = Patience.with_first_sound_after(engine.capabilities.first_sound_s)
        self.draining = False
        """Whether it is to say that it takes nothing new."""
        self._proved_at: float | None = None
        """On the monotonic clock; None at the start and in doubt."""
        self._trial: asyncio.Task[None] | None = None
        self._reason = _UNDER_WAY
        """What there is to say while nothing is proved."""

    def proved(self) -> None:
        """A synthesis has given sound."""
        self._proved_at = time.monotonic()

    def doubt(self) -> None:
        """A synthesis has failed for a reason of ours: the last proof counts no more."""
        self._proved_at = None

    async def check(self) -> Readiness:
        """The verdict, within `_LONGEST_WAIT_S` and at once where one is known."""
        status = self._engine.status()
        if status.fatal is not None or not status.ready:
            return Readiness(ready=False, reason=status.fatal or status.reason)
        if status.silent_s > self._patience.silence:
            self.doubt()
            return Readiness(ready=False, reason=f"the engine has made no sound for {status.silent_s:.0f} s")
        trial = self._trial
        if trial is None or trial.done():
            if status.running_jobs or self._is_fresh():
                return Readiness(ready=True)  # A busy engine is not a dead one: its jobs are the better proof.
            self._reason = _UNDER_WAY
            trial = self._trial = asyncio.create_task(self._try(), name="readiness-trial")
        if self._proved_at is None:
            await asyncio.wait({trial}, timeout=_LONGEST_WAIT_S)
        if self._proved_at is None:
            return Readiness(ready=False, reason=self._reason)
        return Readiness(ready=True)

    async def close(self) -> None:
        """Stop a trial that is under way."""
        if self._trial is not None:
            self._trial.cancel()
            await asyncio.wait({self._trial})

    def _is_fresh(self) -> bool:
        return self._proved_at is not None and time.monotonic() - self._proved_at < self._patience.proof

    async def _try(self) -> None:
        job = Job(id="readiness", text="ready", voice=self._engine.capabilities.voices[0].id)
        try:
            async with asyncio.timeout(self._patience.trial), aclosing(self._engine.submit(job)) as sound:
                heard = await anext(sound, None)
        except TimeoutError:
            self._failed(f"a trial synthesis gave no sound within {self._patience.trial:g} s")
        except FleetError as error:
            self._failed(error.message)
        except Exception:  # A trial that crashes is no proof, and nobody may be waiting for it who would tell.
            log.exception("readiness_trial_crashed")
            self._failed("a trial synthesis met an error of our own; the log says more")
        else:
            if heard is None:
                self._failed("a trial synthesis ended without a sound")
            else:
                self.proved()

    def _failed(self, reason: str) -> None:
        self.doubt()
        self._reason = reason
