"""Streams of speech tokens made into sound while they grow: which hop is computed next, and with whom."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from workers.engine.chatterbox.conditionals import DeviceVoices, VoiceConditionals
from workers.engine.chatterbox.graphs import GraphPool
from workers.engine.chatterbox.hops import FIRST_HOPS, FRAMES_PER_TOKEN, LOOKAHEAD, Hop
from workers.engine.chatterbox.rendering import Part, Renderer, SoundState
from workers.engine.chatterbox.s3gen import EulerBatch, FlowInput, S3Gen
from workers.engine.chatterbox.streams import Chunk, SpeechStream, Work

GRAPH_ROWS = (1, 2, 4, 8, 16)
"""Numbers of streams that an Euler step is captured for."""

_CAPTURED_FRAMES = tuple(range(128, 1025, 64))
_FRAMES = (*_CAPTURED_FRAMES, *range(1152, 2049, 128), *range(2304, 4097, 256))
"""Lengths that streams are padded to on CUDA, so that those of nearly the same length share a batch and a graph. What
is heard while it is made has the first; the others are of long texts made as a whole."""

_AHEAD = 2
"""Pieces of work that the device may have before it; more would keep the decode steps waiting for no gain."""

_ENCODED_AT_ONCE = 8
"""On CUDA. On a CPU sharing saves nothing, and one alone comes out the same to the bit whatever else runs."""


@dataclass(slots=True)
class VocoderCounts:
    euler_steps: int = 0
    euler_rows: int = 0
    replays: int = 0
    hops: int = 0


class Vocoder:
    """Runs the hops of all streams, the one whose listener waits soonest first.

    One thread owns it. On CUDA everything runs on `lane`, a stream of its own, and nothing here waits for the device
    unless asked to. `rows` bounds the streams that share an Euler step, `prompt_tokens` what is taken of a voice's
    prompt.
    """

    def __init__(
        self,
        s3gen: S3Gen,
        renderer: Renderer,
        voices: DeviceVoices,
        *,
        rows: int,
        prompt_tokens: int,
        pool: GraphPool | None = None,
        lane: torch.cuda.Stream | None = None,
    ) -> None:
        self.counts = VocoderCounts()
        self._s3gen = s3gen
        self._renderer = renderer
        self._voices = voices
        self._rows = rows
        self._prompt_tokens = prompt_tokens
        self._pool = pool
        self._lane = lane
        self._encoded_at_once = 1 if lane is None else _ENCODED_AT_ONCE
        self._streams: dict[str, SpeechStream] = {}
        self._batches: dict[int, EulerBatch] = {}
        self._under_way: deque[torch.cuda.Event] = deque()
        self._beginning: list[SpeechStream] = []
        self._rendered: deque[_Rendered] = deque()

    @property
    def streams(self) -> int:
        return len(self._streams)

    @property
    def waiting_for_device(self) -> bool:
        return bool(self._rendered)

    def add(self, stream: SpeechStream) -> None:
        self._streams[stream.id] = stream

    def remove(self, stream: SpeechStream) -> None:
        """Forget a stream, whatever is under way for it. Unknown ones are ignored."""
        if self._streams.pop(stream.id, None) is not None and stream.work is not None:
            stream.work.batch.drop(stream.work.row)
            stream.work = None
            self._drop_idle_batches()

    def abort(self) -> list[SpeechStream]:
        """Forget the streams that a failed `step` may have left half done; they."""
        failed = [stream for stream in self._streams.values() if stream.work is not None]
        failed += [stream for stream in self._beginning if stream.work is None]
        self._beginning = []
        failed += [rendered.stream for rendered in self._rendered if rendered.stream.id in self._streams]
        for stream in failed:
            self.remove(stream)
        self._rendered.clear()
        self._under_way.clear()
        self._drop_idle_batches()
        return failed

    def step(self, *, wait: bool = False) -> list[Chunk]:
        """Do the next piece of work, one Euler step at most, and return the sound that has arrived.

        With `wait` the device is waited for where there is nothing else to do.
        """
        with self._on_lane():
            if self._may_launch(wait=wait):
                self._begin_hops()
                self._solve()
            return self._arrived(wait=wait and not self._working())

    def warm(self, voice: VoiceConditionals) -> None:
        """Run a first hop's shapes once, so that libraries choose their algorithms before somebody waits for them."""
        with self._on_lane():
            prompt = self._voices.get(voice.gen.shortened(self._prompt_tokens), voice.digest)
            tokens = [0] * (FIRST_HOPS[0] + LOOKAHEAD)
            flow = FlowInput(prompt, tokens, 0, last=False, seed=0)
            if self._pool is not None:
                self._batch(self._padded(flow.frames)).capture(1)
            self._s3gen.encode([flow])

    def captures(self) -> Iterator[Callable[[], None]]:
        """What can be recorded when there is nothing else to do, the most useful first; nothing on a CPU."""
        if self._pool is None:
            return
        for rows in GRAPH_ROWS:
            for frames in _CAPTURED_FRAMES:
                if rows <= self._rows:
                    yield partial(self._capture, frames, rows)

    def _capture(self, frames: int, rows: int) -> None:
        with self._on_lane():
            self._batch(frames).capture(rows)

    def _on_lane(self) -> AbstractContextManager[object]:
        return nullcontext() if self._lane is None else torch.cuda.stream(self._lane)

    def _working(self) -> bool:
        return any(stream.work is not None for stream in self._streams.values())

    def _may_launch(self, *, wait: bool) -> bool:
        while self._under_way and self._under_way[0].query():
            self._under_way.popleft()
        if len(self._under_way) >= _AHEAD and wait:
            self._under_way.popleft().synchronize()
        return len(self._under_way) < _AHEAD

    def _begin_hops(self) -> None:
        """Encode the hops whose tokens are there, the most urgent first, and give each a row."""
        begun: list[tuple[SpeechStream, Hop, FlowInput]] = []
        self._beginning = []
        for stream in sorted(self._streams.values(), key=lambda stream: stream.deadline):
            if stream.work is not None or stream.paused or len(begun) == self._encoded_at_once:
                continue
            hop = stream.plan.next(len(stream.tokens), ended=stream.ended)
            if hop is None:
                continue
            self._beginning.append(stream)
            if self._room_for(flow := self._flow(stream, hop), [f for *_, f in begun]):
                begun.append((stream, hop, flow))
            else:
                self._beginning.pop()
        if not begun:
            return
        for (stream, hop, flow), fixed in zip(begun, self._s3gen.encode([f for *_, f in begun]), strict=True):
            stream.plan.take(hop)
            batch = self._batch(self._padded(flow.frames))
            row = batch.place(fixed, self._s3gen.noise(flow), stream.quality)
            stream.work = Work(stream, hop, flow, batch, row, self._s3gen.counts[stream.quality])
        self._beginning = []

    def _room_for(self, flow: FlowInput, others: list[FlowInput]) -> bool:
        frames = self._padded(flow.frames)
        return self._batch(frames).free > sum(self._padded(other.frames) == frames for other in others)

    def _flow(self, stream: SpeechStream, hop: Hop) -> FlowInput:
        prompt = self._voices.get(stream.voice.gen.shortened(self._prompt_tokens), stream.voice.digest)
        tokens = stream.tokens[hop.context : hop.fed]
        return FlowInput(prompt, tokens, hop.context, hop.last, stream.seed)

    def _solve(self) -> None:
        """One Euler step of the most urgent hop and of those that can share it, then render what is solved."""
        works = sorted(
            (stream.work for stream in self._streams.values() if stream.work is not None),
            key=lambda work: work.stream.deadline,
        )
        if not works:
            return
        batch = works[0].batch
        together = [work for work in works if work.batch is batch][: self._rows]
        self.counts.replays += batch.step([work.row for work in together])
        self.counts.euler_steps += 1
        self.counts.euler_rows += len(together)
        for work in together:
            work.steps -= 1
        self._render([work for work in together if work.steps == 0])
        self._mark()

    def _render(self, works: list[Work]) -> None:
        if not works:
            return
        for place, sound in enumerate(self._renderer.render([self._part(work) for work in works])):
            work = works[place]
            self._rendered.append(_Rendered(work.stream, work.hop, *_returning(sound)))
            work.stream.work = None
        self.counts.hops += len(works)
        self._drop_idle_batches()

    def _drop_idle_batches(self) -> None:
        """Without graphs, which hold on to theirs: on a CPU the lengths are many."""
        if self._pool is None:
            self._batches = {frames: batch for frames, batch in self._batches.items() if not batch.empty}

    def _part(self, work: Work) -> Part:
        stream, hop = work.stream, work.hop
        mel = work.batch.take(work.row, work.flow.frames)
        start = FRAMES_PER_TOKEN * (len(work.flow.prompt.tokens) - hop.context) + hop.first_frame
        if stream.state is None:
            stream.state = SoundState(self._s3gen.hift)
        return Part(stream.state, mel[start:], hop.first_frame, hop.end_frame - hop.first_frame, stream.seed)

    def _mark(self) -> None:
        if self._lane is not None:
            event = torch.cuda.Event()
            event.record()
            self._under_way.append(event)

    def _arrived(self, *, wait: bool) -> list[Chunk]:
        chunks: list[Chunk] = []
        while self._rendered:
            rendered = self._rendered[0]
            if rendered.arrived is not None and not rendered.arrived.query():
                if not (wait and not chunks):
                    break
                rendered.arrived.synchronize()
            self._rendered.popleft()
            if rendered.stream.id not in self._streams:
                continue
            chunks.append(Chunk(rendered.stream, rendered.sound.numpy(), rendered.hop.last))
            if rendered.hop.last:
                self.remove(rendered.stream)
        return chunks

    def _batch(self, frames: int) -> EulerBatch:
        if frames not in self._batches:
            on_gpu = self._lane is not None
            # A place is kept from a hop's beginning to its end, so there are more than rows in a step.
            capacity = 2 * self._rows if frames <= _CAPTURED_FRAMES[-1] else self._rows
            self._batches[frames] = EulerBatch(self._s3gen, frames, capacity, ragged=on_gpu, pool=self._pool)
        return self._batches[frames]

    def _padded(self, frames: int) -> int:
        if self._lane is None:
            return frames
        return next((size for size in _FRAMES if size >= frames), frames)


@dataclass(frozen=True, slots=True)
class _Rendered:
    """Sound on its way to the host, and the event of its arrival."""

    stream: SpeechStream
    hop: Hop
    sound: Tensor
    arrived: torch.cuda.Event | None


def _returning(sound: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    if sound.device.type != "cuda":
        return sound, None
    pinned = torch.empty(sound.shape, dtype=sound.dtype, pin_memory=True)
    pinned.copy_(sound, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return pinned, arrived
