"""CUDA graphs: what a step is padded to, captured and replayed. On a CPU the same calls run eagerly, unpadded lines."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.chatterbox.sampler import NOT_SAMPLED, Lines
from workers.engine.chatterbox.transfer import staged

GRAPH_ROWS = (2, 4, 8, 16, 32, 64, 96, 128)
"""Numbers of rows that a decode step is captured for."""

GRAPH_CHUNKS = (64, 96, 128, 192, 256, 384, 512, 768)
"""Prompt lengths that a prefill is captured for; what comes behind the prompt is overwritten before it is read."""


class GraphPool:
    """What all graphs share: their memory, and one stream, since each stream keeps a workspace of its own for good."""

    def __init__(self) -> None:
        self.memory: Any = torch.cuda.graph_pool_handle()
        self.stream = torch.cuda.Stream()


_WARM_UPS = 3
"""Runs before a capture, in which libraries choose their algorithms and take their workspaces."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one decode step, R of them, and the lines to be sampled; int64 tensors that a graph holds on to.

    `slots` [R] is each row's place in the KV cache, `leads` [R] the slot of its sequence's state.
    """

    slots: Tensor
    leads: Tensor
    lines: Lines

    @classmethod
    def empty(cls, rows: int, lines: int, *, scratch: int, device: torch.device) -> Batch:
        """A batch of dead rows only."""

        def filled(count: int, value: int) -> Tensor:
            return torch.full((count,), value, dtype=torch.int64, device=device)

        return cls(
            slots=filled(rows, scratch),
            leads=filled(rows, scratch),
            lines=Lines(filled(lines, 0), filled(lines, 0), filled(lines, scratch), filled(lines, NOT_SAMPLED)),
        )

    def place(self, members: Sequence[tuple[int, ...]], *, scratch: int) -> None:
        """Fill in the slots of each sequence, conditional first; rows and lines that are left over are dead."""
        rows = [(slot, slots[0]) for slots in members for slot in slots]
        rows += [(scratch, scratch)] * (len(self.slots) - len(rows))
        lines: list[tuple[int, int, int]] = []
        row = 0
        for slots in members:
            lines.append((row, row + len(slots) - 1, slots[0]))
            row += len(slots)
        lines += [(0, 0, scratch)] * (len(self.lines.cond) - len(lines))
        sources = [*zip(*rows, strict=True), *zip(*lines, strict=True)]
        targets = (self.slots, self.leads, self.lines.cond, self.lines.uncond, self.lines.leads)
        for target, source in zip(targets, sources, strict=True):
            target.copy_(staged(torch.tensor(source), target.device), non_blocking=True)


class CapturedCall:
    """A call on fixed tensors, recorded once and replayed."""

    def __init__(self, call: Callable[[], None], pool: GraphPool) -> None:
        pool.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(pool.stream):
            for _ in range(_WARM_UPS):
                call()
        torch.cuda.current_stream().wait_stream(pool.stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool.memory, stream=pool.stream):
            call()

    def __call__(self) -> None:
        self._graph.replay()


class StepRunner:
    """Runs decode steps for changing sets of sequences. Only here is known what they are padded to.

    `step(batch, filtered)` computes one step on the tensors of a batch. `sizes` are the numbers of rows it may be
    called with. On CUDA each size has one batch of as many lines as rows, so that one graph serves every mixture; a
    size that is not captured runs eagerly on the same batch.
    """

    def __init__(
        self,
        step: Callable[[Batch, bool], None],
        *,
        sizes: Sequence[int],
        scratch: int,
        device: torch.device,
        pool: GraphPool | None,
    ) -> None:
        self._step = step
        self.sizes = sorted(sizes)
        self._scratch = scratch
        self._device = device
        self._pool = pool
        self._batches: dict[tuple[int, int], Batch] = {}
        self._placed: dict[tuple[int, int], tuple[tuple[int, ...], ...]] = {}
        self._graphs: dict[tuple[int, bool], CapturedCall] = {}
        self.replays = 0
        self.eager_steps = 0

    def run(self, members: Sequence[tuple[int, ...]], *, filtered: bool) -> Tensor:
        """One step for the sequences that hold these slots; the tokens drawn, int64 [at least len(members)]."""
        rows = sum(len(slots) for slots in members)
        size = self.sizes[bisect.bisect_left(self.sizes, rows)]
        key = (size, size if self._device.type == "cuda" else len(members))
        batch = self._batch(*key)
        if self._placed.get(key) != (placed := tuple(members)):
            batch.place(members, scratch=self._scratch)
            self._placed[key] = placed
        graph = self._graphs.get((size, filtered))
        if graph is None:
            self.eager_steps += 1
            self._step(batch, filtered)
        else:
            self.replays += 1
            graph()
        return batch.lines.emitted

    def capture(self, size: int, *, filtered: bool) -> None:
        """Record the step of one of `sizes`; without a pool, on a CPU, this does nothing. Call it between steps."""
        if self._pool is None or size not in self.sizes or (size, filtered) in self._graphs:
            return
        batch = self._batch(size, size)
        batch.place([], scratch=self._scratch)
        self._placed.pop((size, size), None)
        self._graphs[size, filtered] = CapturedCall(lambda: self._step(batch, filtered), self._pool)

    def _batch(self, rows: int, lines: int) -> Batch:
        if (rows, lines) not in self._batches:
            if self._device.type != "cuda":  # nothing holds on to a batch there, and there are many kinds
                self._batches.clear()
                self._placed.clear()
            self._batches[rows, lines] = Batch.empty(rows, lines, scratch=self._scratch, device=self._device)
        return self._batches[rows, lines]


class PrefillRunner:
    """Runs prefills, replaying a graph of the next larger length where one was captured.

    `prefill(embeddings, slots, start)` is the model's. Padding computes positions behind the prompt that the first
    decode steps overwrite before anything reads them.
    """

    def __init__(
        self,
        prefill: Callable[[Tensor, Tensor, int], None],
        *,
        dim: int,
        positions: int,
        device: torch.device,
        pool: GraphPool | None,
    ) -> None:
        self._prefill = prefill
        self._dim = dim
        self.sizes = [size for size in GRAPH_CHUNKS if size <= positions]
        self._device = device
        self._pool = pool
        self._captured: dict[tuple[int, int], tuple[CapturedCall, Tensor, Tensor]] = {}

    def run(self, embeddings: Tensor, slots: tuple[int, ...], start: int) -> None:
        """Prefill float32 [rows, chunk, dim] into the slots, from position `start`."""
        rows, chunk, _ = embeddings.shape
        where = staged(torch.tensor(slots), self._device)
        place = bisect.bisect_left(self.sizes, chunk)
        size = self.sizes[place] if place < len(self.sizes) else 0
        found = self._captured.get((rows, size)) if start == 0 else None
        if found is None:
            if start == 0 and size and self._device.type == "cuda":  # as a captured one is, so that the bits are too
                embeddings = F.pad(embeddings, (0, 0, 0, size - chunk))
            self._prefill(embeddings, where.to(self._device, non_blocking=True), start)
            return
        graph, inputs, targets = found
        inputs[:, :chunk].copy_(embeddings)
        inputs[:, chunk:].zero_()
        targets.copy_(where, non_blocking=True)
        graph()

    def capture(self, rows: int, size: int, *, scratch: int) -> None:
        """Record the prefill of `rows` rows of `size` positions; without a pool, on a CPU, this does nothing."""
        if self._pool is None or (rows, size) in self._captured:
            return
        inputs = torch.zeros(rows, size, self._dim, device=self._device)
        targets = torch.full((rows,), scratch, dtype=torch.int64, device=self._device)
        graph = CapturedCall(lambda: self._prefill(inputs, targets, 0), self._pool)
        self._captured[rows, size] = (graph, inputs, targets)
