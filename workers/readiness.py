"""Whether a synthesis would succeed now, known from one that just did."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from fleet.contract import Readiness
from fleet.errors import FleetError
from workers.engine.base import Engine, Job

_PROOF_LASTS_S = 5.0
_TRIAL_TIMEOUT_S = 5.0
_LONGEST_SILENCE_S = 2.0
"""A busy engine that has made no sound for longer is not taken at its word."""


class ReadinessCheck:
    """Speaks one short word when the last proof is older than five seconds and nothing else is being spoken."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._proved_at = float("-inf")
        self._trial = asyncio.Lock()

    def doubt(self) -> None:
        """A synthesis has failed for a reason of ours: the last proof counts no more."""
        self._proved_at = float("-inf")

    async def check(self) -> Readiness:
        status = self._engine.status()
        if not status.ready:
            return Readiness(ready=False, reason=status.reason)
        async with self._trial:
            status = self._engine.status()
            if status.silent_s > _LONGEST_SILENCE_S:
                return Readiness(ready=False, reason=f"the engine has made no sound for {status.silent_s:.0f} s")
            if status.running_jobs or time.monotonic() - self._proved_at < _PROOF_LASTS_S:
                return Readiness(ready=True)  # A busy engine is not a dead one: its jobs are the better proof.
            return await self._try()

    async def _try(self) -> Readiness:
        job = Job(id="readiness", text="ready", voice=self._engine.capabilities.voices[0].id)
        try:
            async with asyncio.timeout(_TRIAL_TIMEOUT_S), aclosing(self._engine.submit(job)) as sound:
                await anext(sound)
        except TimeoutError:
            return Readiness(ready=False, reason=f"a trial synthesis gave no sound within {_TRIAL_TIMEOUT_S:g} s")
        except FleetError as error:
            return Readiness(ready=False, reason=error.message)
        self._proved_at = time.monotonic()
        return Readiness(ready=True)
