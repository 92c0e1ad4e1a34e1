"""What the engine made of voices, ready to speak with: the ones used last, within a bound on their size."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from workers.engine.base import Conditionals


class ConditionalsCache:
    """Conditionals by the digest of the file they are kept in. Lives on one event loop.

    `load` gives those of a digest and their size in bytes; it may block, and is called once at a time for a digest.
    """

    def __init__(self, load: Callable[[str], tuple[Conditionals, int]], limit_bytes: int) -> None:
        self._load = load
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[str, tuple[Conditionals, int]] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Conditionals]] = {}
        self.nbytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._held)

    async def get(self, digest: str) -> Conditionals:
        """Raises what `load` raises, to all who wait for it; nothing of it is remembered."""
        if (held := self._held.get(digest)) is not None:
            self.hits += 1
            self._held.move_to_end(digest)
            return held[0]
        task = self._loading.get(digest)
        if task is None:
            self.misses += 1
            task = self._loading[digest] = asyncio.create_task(self._fetch(digest))
            task.add_done_callback(lambda _: self._loading.pop(digest, None))
        return await asyncio.shield(task)  # a request that leaves does not take it from the others

    async def _fetch(self, digest: str) -> Conditionals:
        conditionals, size = await asyncio.to_thread(self._load, digest)
        if size <= self._limit_bytes:
            self._held[digest] = (conditionals, size)
            self.nbytes += size
            while self.nbytes > self._limit_bytes:
                self.nbytes -= self._held.popitem(last=False)[1][1]
        return conditionals
