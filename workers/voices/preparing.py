"""The worker's share in preparing voices: one at a time, those that somebody waits for first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from fleet.errors import FleetError, InvalidValue, Overloaded, StorageFull, StoreUnavailable
from workers.engine.base import Engine
from workers.voices.artifacts import ArtifactDamaged, Artifacts
from workers.voices.preparations import LEASE_S, MOST_ATTEMPTS, Preparations
from workers.voices.recordings import read_copy
from workers.voices.records import Claim

log = structlog.get_logger()

_PAUSE_S = 1.0
"""Between two looks for work while there may be some: another worker may die and leave its own."""

_DEADLY = "every worker that prepared it ended meanwhile"
_DAMAGED = "its recording is damaged or gone: upload it again"


class Preparer:
    """Claims voices that nobody prepares, has the engine measure them, and keeps what it makes.

    `has_work` tells whether a voice may be waiting. A voice that the engine refuses is failed with the reason; what may
    pass is tried again, here or on another worker.
    """

    def __init__(
        self, engine: Engine, preparations: Preparations, artifacts: Artifacts, has_work: Callable[[], bool]
    ) -> None:
        self._engine = engine
        self._preparations = preparations
        self._artifacts = artifacts
        self._has_work = has_work
        self._wake = asyncio.Event()
        self._urgent: dict[str, None] = {}
        self.prepared = 0
        self.failed = 0

    def wake(self) -> None:
        """The library has changed."""
        self._wake.set()

    def urge(self, voice_id: str) -> None:
        """Somebody waits for this voice."""
        if voice_id not in self._urgent:
            self._urgent[voice_id] = None
            self.wake()

    async def run(self) -> None:
        """Until cancelled; a claim that is held then is given back."""
        while True:
            try:
                worked = self._has_work() and await self._next()
            except FleetError as error:  # of the store, which will be there again
                log.warning("preparing_interrupted", reason=error.message)
                worked = False
            except Exception:  # A fault of ours with one voice must not leave all others waiting.
                log.exception("preparing_crashed")
                worked = False
            if not worked:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _PAUSE_S)
                self._wake.clear()

    async def _next(self) -> bool:
        claim = await asyncio.to_thread(self._preparations.claim, tuple(self._urgent))
        if claim is None:
            self._urgent.clear()  # others see to them, or they are gone
            return False
        self._urgent.pop(claim.voice, None)
        renewing = asyncio.create_task(self._renew(claim.voice))
        try:
            await self._prepare(claim)
        except asyncio.CancelledError:
            with contextlib.suppress(FleetError):
                await asyncio.to_thread(self._preparations.give_back, claim.voice, counted=False)
            raise
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})
        return True

    async def _prepare(self, claim: Claim) -> None:
        if claim.attempt > MOST_ATTEMPTS:
            await self._refuse(claim, _DEADLY)
            return
        try:
            artifact, size = await asyncio.to_thread(self._make, claim)
        except (InvalidValue, ArtifactDamaged) as error:
            reason = error.message if isinstance(error, InvalidValue) else _DAMAGED
            await self._refuse(claim, reason)
        except (StorageFull, StoreUnavailable, Overloaded) as error:  # the voice has no part in it
            log.warning("preparation_put_off", voice=claim.voice, reason=error.message)
            await self._give_back(claim, counted=False)
        except FleetError as error:
            await self._come_back(claim, error.message)
        except Exception as error:  # Whatever it is, the voice must not stay pending for ever.
            log.exception("preparation_crashed", voice=claim.voice)
            await self._come_back(claim, f"the engine met an error of its own: {type(error).__name__}")
        else:
            if await asyncio.to_thread(self._preparations.finish, claim.voice, artifact=artifact, size=size):
                self.prepared += 1
                log.info("voice_prepared", voice=claim.voice)

    def _make(self, claim: Claim) -> tuple[str, int]:
        recordings = [read_copy(self._artifacts.read(digest)) for digest in claim.copies]
        packed = self._engine.pack(self._engine.prepare(recordings))
        return self._artifacts.put(packed), len(packed)

    async def _refuse(self, claim: Claim, reason: str) -> None:
        if await asyncio.to_thread(self._preparations.fail, claim.voice, reason):
            self.failed += 1
            log.warning("voice_unfit", voice=claim.voice, reason=reason)

    async def _come_back(self, claim: Claim, reason: str) -> None:
        if claim.attempt >= MOST_ATTEMPTS:
            await self._refuse(claim, reason)
            return
        log.warning("preparation_failed", voice=claim.voice, attempt=claim.attempt, reason=reason)
        await self._give_back(claim, counted=True)

    async def _give_back(self, claim: Claim, *, counted: bool) -> None:
        await asyncio.sleep(_PAUSE_S)
        await asyncio.to_thread(self._preparations.give_back, claim.voice, counted=counted)

    async def _renew(self, voice_id: str) -> None:
        """Hold the lease while the engine computes. One that is lost makes the result void, as `finish` finds out."""
        while True:
            await asyncio.sleep(LEASE_S / 3)
            try:
                if not await asyncio.to_thread(self._preparations.renew, voice_id):
                    return
            except FleetError as error:
                log.warning("lease_not_renewed", voice=voice_id, reason=error.message)
