"""Continuous batching: who waits, who prefills this tick, who decodes. No torch."""

from __future__ import annotations

import bisect
import heapq
from dataclasses import dataclass

from fleet.errors import FleetError, InvalidValue, Overloaded
from workers.engine.chatterbox.sequence import Finish, Sequence, Stage


@dataclass(frozen=True, slots=True)
class PrefillChunk:
    """Prompt positions `start` to `stop` of one sequence, computed in one go."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def is_last(self) -> bool:
        return self.stop == self.sequence.prompt_positions


@dataclass(frozen=True, slots=True)
class Tick:
    """What the device does next: these chunks one after the other, then one step for all of `decode`."""

    prefill: list[PrefillChunk]
    decode: list[Sequence]


class Scheduler:
    """Places sequences in slots in the order they are due and says what each tick computes.

    A sequence keeps its slots from admission to its end, so one that runs is never put back. Who is due first is served
    first, of those due at once who came first, also when the next needs two slots and one is free. As `due` is a
    moment, everybody's turn comes: nobody starves.

    `slots` is the number of places in the KV cache, `positions` the length of each. A prompt is prefilled in chunks of
    `chunk` positions, the same whatever else runs, and no tick prefills more than `budget` positions, counted once per
    row, unless one chunk alone is more; so those who decode wait for a bounded time.
    """

    def __init__(self, *, slots: int, positions: int, chunk: int, budget: int, max_waiting: int) -> None:
        self._slot_count = slots
        self._positions = positions
        self._chunk = chunk
        self._budget = budget
        self._max_waiting = max_waiting
        self._free = list(range(slots))
        self._waiting: list[Sequence] = []
        self._running: dict[str, Sequence] = {}

    @property
    def free_slots(self) -> int:
        return len(self._free)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._running

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises `Overloaded` when the queue is full, `InvalidValue` when it can never fit."""
        if sequence.rows > self._slot_count:
            raise InvalidValue(
                f"classifier-free guidance takes two rows and this engine has {self._slot_count}; set cfg_weight to 0",
                param="cfg_weight",
            )
        if sequence.prompt_positions + sequence.max_tokens > self._positions:
            raise InvalidValue(
                f"the text and {sequence.max_tokens} tokens take {sequence.prompt_positions + sequence.max_tokens} "
                f"positions and a slot has {self._positions}",
                param="max_tokens",
            )
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} sequences are waiting already", retry_after=1)
        if sequence.stage is not Stage.WAITING or self._find(sequence.id) is not None:
            raise InvalidValue(f"a sequence {sequence.id!r} is here already", param="id")
        bisect.insort(self._waiting, sequence, key=lambda waiting: waiting.due)

    def cancel(self, sequence_id: str) -> Sequence | None:
        """End a sequence; its slots are free for the next tick. Unknown ids are ignored."""
        sequence = self._find(sequence_id)
        if sequence is not None:
            self.finish(sequence, Finish.CANCELLED)
        return sequence

    def finish(self, sequence: Sequence, finish: Finish, error: FleetError | None = None) -> None:
        """End a sequence and free its slots. A second end changes nothing."""
        if sequence.finished:
            return
        if self._running.pop(sequence.id, None) is None:
            self._waiting.remove(sequence)
        for slot in sequence.slots:
            heapq.heappush(self._free, slot)
        sequence.slots = ()
        sequence.prompt = None
        sequence.stage, sequence.finish, sequence.error = Stage.FINISHED, finish, error

    def plan(self) -> Tick:
        """Admit whom there is room for and lay out one tick. The caller computes all of it before it asks again."""
        self._admit()
        chunks = self._next_chunks()
        for chunk in chunks:
            chunk.sequence.prefilled = chunk.stop
            if chunk.is_last:
                chunk.sequence.stage = Stage.DECODING
        decode = [s for s in self._running.values() if s.stage is Stage.DECODING and s.launched < s.max_tokens]
        for sequence in decode:
            sequence.launched += 1
        return Tick(chunks, decode)

    def _find(self, sequence_id: str) -> Sequence | None:
        if sequence_id in self._running:
            return self._running[sequence_id]
        return next((s for s in self._waiting if s.id == sequence_id), None)

    def _admit(self) -> None:
        while self._waiting and self._waiting[0].rows <= len(self._free):
            sequence = self._waiting.pop(0)
            sequence.slots = tuple(heapq.heappop(self._free) for _ in range(sequence.rows))
            sequence.stage = Stage.PREFILLING
            self._running[sequence.id] = sequence

    def _next_chunks(self) -> list[PrefillChunk]:
        chunks: list[PrefillChunk] = []
        spent = 0
        for sequence in self._running.values():
            start = sequence.prefilled
            while sequence.stage is Stage.PREFILLING and start < sequence.prompt_positions:
                stop = min(start + self._chunk, sequence.prompt_positions)
                spent += (stop - start) * sequence.rows
                if chunks and spent > self._budget:
                    return chunks
                chunks.append(PrefillChunk(sequence, start, stop))
                start = stop
        return chunks
