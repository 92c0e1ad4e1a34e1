"""One worker's view of the fleet's library: what there is now, voices ready to speak with, and word of every change."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

import structlog

from fleet.errors import FleetError, InvalidValue, NameTaken, VoiceNotFound, VoicePending, VoiceUnfit
from workers.engine.base import Conditionals, Engine
from workers.voices.artifacts import ArtifactDamaged, Artifacts
from workers.voices.conditionals import ConditionalsCache
from workers.voices.preparations import Preparations
from workers.voices.preparing import Preparer
from workers.voices.records import EventRecord, VoiceDraft, VoiceRecord
from workers.voices.snapshot import Snapshot
from workers.voices.store import VoiceStore

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")

_POLL_S = 0.25
"""How old a worker's view may become while nobody asks it anything."""

_LONGEST_LOOK_S = 1.0
"""What a request waits for the store before it is served from what was known last."""


class Library:
    """Voices and emotion profiles as all workers of the fleet see them.

    Reading never fails: while the store does not answer, the last view holds. Changes go through `call`, which raises
    what the store raises, and are part of every view that is asked for afterwards, on any worker.
    """

    def __init__(
        self,
        engine: Engine,
        store: VoiceStore,
        preparations: Preparations,
        artifacts: Artifacts,
        *,
        wait_s: float,
        cache_bytes: int,
        closing: asyncio.Event | None = None,
    ) -> None:
        self._engine = engine
        self.preparations = preparations
        self._wait_s = wait_s
        self.store = store
        self.artifacts = artifacts
        self.kind = engine.capabilities.conditionals
        self.snapshot = Snapshot.empty(engine.capabilities.voices)
        self.cache = ConditionalsCache(self._load, cache_bytes)
        self.preparer = Preparer(engine, preparations, artifacts, lambda: bool(self.snapshot.pending))
        self._changed = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._queued: asyncio.Task[None] | None = None
        self._lost = False
        self.closing = closing or asyncio.Event()
        """Set when the worker ends; whoever follows changes stops."""
        self._look_apply(self._look_blocking())  # a worker that cannot read its library does not start

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow changes and prepare voices while the context is entered."""
        tasks = [asyncio.create_task(self._poll(), name="library"), asyncio.create_task(self.preparer.run())]
        try:
            yield
        finally:
            self.closing.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def call(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Something that blocks, off the event loop; what it changed is in the view when this returns."""
        result = await asyncio.to_thread(work, *args, **kwargs)
        await self.current()
        return result

    async def current(self) -> Snapshot:
        """The library as it is now, or, when the store does not answer in time, as it was last seen."""
        if not self._lost:
            # A look that began before this call may have missed what was written in between; the next one cannot.
            look = self._begin_look() if self._looking is None else self._queue_look(self._looking)
            await asyncio.wait({look}, timeout=_LONGEST_LOOK_S)
        return self.snapshot

    async def require_free_name(self, draft: VoiceDraft) -> None:
        """Raises `NameTaken` for what the store would refuse, before the work that comes first."""
        view = await self.current()
        for field, name in (("name", draft.name), *(("aliases", alias) for alias in draft.aliases)):
            if view.has_voice_named(name):
                raise NameTaken(f"another voice answers to {name!r} already", param=field)

    async def conditionals(self, voice: VoiceRecord) -> Conditionals | None:
        """What the engine made of a voice's recordings; None for one of its own. Waits for one that is being prepared.

        Raises `VoicePending` when that takes too long, `VoiceUnfit` when nothing could be made of them, and
        `VoiceNotFound` when the voice is removed meanwhile.
        """
        if voice.builtin:
            return None
        deadline = time.monotonic() + self._wait_s
        while True:
            if voice.status == "failed":
                raise VoiceUnfit(f"the voice {voice.name!r} cannot speak: {voice.reason}", param="voice")
            if voice.conditionals is not None:
                try:
                    return await self.cache.get(voice.conditionals)
                except (ArtifactDamaged, InvalidValue) as error:
                    log.warning("conditionals_lost", voice=voice.id, reason=str(error))
                    await self.call(self.preparations.again, voice.id, voice.conditionals)
            else:
                self.preparer.urge(voice.id)
                if not await self.changed(deadline - time.monotonic()):
                    message = f"the voice {voice.name!r} is still being prepared"
                    raise VoicePending(message, param="voice", retry_after=2)
            known = self.snapshot.kept.get(voice.id)
            if known is None:
                raise VoiceNotFound(f"the voice {voice.name!r} has been removed", param="voice")
            voice = known

    async def changed(self, limit_s: float) -> bool:
        """Wait for the next change of the view; False when none came in time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), max(0.0, limit_s))
            return True
        return False

    async def events(self, since: int) -> list[EventRecord]:
        """What is kept of what happened after a revision, oldest first, at most 500."""
        if self.snapshot.revision <= since:
            return []
        return await asyncio.to_thread(self.store.events, since, 500)

    def _load(self, digest: str) -> tuple[Conditionals, int]:
        packed = self.artifacts.read(digest)
        return self._engine.unpack(packed), len(packed)

    async def _poll(self) -> None:
        while True:
            await asyncio.wait({self._looking or self._begin_look()})
            await asyncio.sleep(_POLL_S)

    def _begin_look(self) -> asyncio.Task[None]:
        self._looking = asyncio.create_task(self._look(), name="library-look")
        return self._looking

    def _queue_look(self, running: asyncio.Task[None]) -> asyncio.Task[None]:
        async def follow() -> None:
            await asyncio.wait({running})
            self._queued = None
            await self._begin_look()

        if self._queued is None:
            self._queued = asyncio.create_task(follow(), name="library-next-look")
        return self._queued

    async def _look(self) -> None:
        try:
            self._look_apply(await asyncio.to_thread(self._look_blocking))
            self._lost = False
        except FleetError:  # told by the database itself; the last view holds until it answers
            self._lost = True
        except Exception:  # A fault of ours: the view grows old, and requests are still served.
            log.exception("library_look_crashed")
            self._lost = True
        finally:
            self._looking = None

    def _look_blocking(self) -> Snapshot:
        known = self.snapshot
        if self.store.revision() == known.revision:
            return known
        return known.after(self.store.changes(self.kind, known.revision if known.revision >= 0 else None))

    def _look_apply(self, seen: Snapshot) -> None:
        if seen.revision <= self.snapshot.revision:  # two looks may end in either order
            return
        self.snapshot = seen
        self._changed.set()
        self._changed = asyncio.Event()
        self.preparer.wake()
