"""The token half of the engine: admit, prefill, decode, collect."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from fleet.errors import EngineLost, FleetError, InvalidValue, SynthesisFailed
from fleet.startup_errors import InvalidSettings, ModelInvalid
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.graphs import GRAPH_ROWS, Batch, GraphPool, PrefillRunner, StepRunner
from workers.engine.chatterbox.kernels import Kernels, choose_kernels
from workers.engine.chatterbox.kv_cache import KVSlots, slots_that_fit
from workers.engine.chatterbox.options import (
    EngineOptions,
    check_max_tokens,
    check_parameters,
    choose_device,
    choose_precision,
)
from workers.engine.chatterbox.prompt import PromptEncoder, SpeakerPrompt
from workers.engine.chatterbox.sampler import BROKEN, NOT_SAMPLED, SamplingState, needs_sorting
from workers.engine.chatterbox.scheduler import PrefillChunk, Scheduler
from workers.engine.chatterbox.sequence import Finish, Sequence
from workers.engine.chatterbox.t3 import T3, read_config
from workers.engine.chatterbox.text import TextTokenizer
from workers.engine.chatterbox.weights import TensorFile, find_checkpoint, read_conditionals

_LAG = 1
"""Steps that a CUDA device is ahead of what the host has read, so that neither waits for the other."""

_CPU_ROWS = (*range(2, 16, 2), *range(16, 64, 4), *range(64, 129, 8))
"""Numbers of rows of a step on a CPU: nothing is captured there, so padding is kept small."""


@dataclass(slots=True)
class DecodeStep:
    """One position of every row of a batch, then one token for every line; all in and out are device tensors."""

    prompts: PromptEncoder
    t3: T3
    slots: KVSlots
    state: SamplingState
    kernels: Kernels

    def __call__(self, batch: Batch, filtered: bool) -> None:  # noqa: FBT001 - the runner's signature
        state, leads = self.state, batch.leads
        embeddings = self.prompts.speech(state.tokens[leads], state.steps[leads])
        logits = self.t3.step(self.slots, embeddings, batch.slots, state.lengths[leads], leads != state.scratch)
        self.kernels.sample(logits, batch.lines, state, filtered=filtered)


class TokenEngine:
    """Text in, speech tokens out, many sequences at once.

    One thread owns it and calls everything here. `tick` does the next piece of work; sequences carry their own results.
    """

    def __init__(
        self, t3: TensorFile, tokenizer: Path, voice: SpeakerPrompt | None = None, options: EngineOptions | None = None
    ) -> None:
        self.options = options = options or EngineOptions()
        self.config = config = read_config(t3)
        self.device = device = choose_device(options.device)
        self.dtype = dtype = choose_precision(options.precision, device)
        if options.positions <= config.prompt_positions(1):
            shortest = config.prompt_positions(1) + 1
            raise InvalidSettings(f"positions must be {shortest} or more for this model", param="positions")
        self.default_voice = voice
        self._text = TextTokenizer(
            tokenizer, vocabulary=config.text_vocabulary, start=config.start_text, stop=config.stop_text
        )
        self._prompts = PromptEncoder(t3, config, device)
        self._kernels = choose_kernels(options.attention, device=device, dtype=dtype)
        self.t3 = T3(t3, config, positions=options.positions, kernels=self._kernels, device=device, dtype=dtype)
        count = slots_that_fit(
            config,
            positions=options.positions,
            device=device,
            dtype=dtype,
            share=options.memory_share,
            most=options.max_rows,
        )
        self.slots = KVSlots(config, count=count, positions=options.positions, device=device, dtype=dtype)
        self._state = SamplingState(config, slots=count, device=device)
        self._step = DecodeStep(self._prompts, self.t3, self.slots, self._state, self._kernels)
        pool = GraphPool() if device.type == "cuda" and options.capture else None
        self.steps = StepRunner(
            self._step, sizes=self._row_sizes(), scratch=self.slots.scratch, device=device, pool=pool
        )
        self.prefills = PrefillRunner(
            partial(self.t3.prefill, self.slots), dim=config.dim, positions=options.positions, device=device, pool=pool
        )
        on_gpu = device.type == "cuda"
        self.scheduler = Scheduler(
            slots=count,
            positions=options.positions,
            chunk=options.positions if on_gpu else 64,
            budget=1024 if on_gpu else 128,
            max_waiting=options.max_waiting,
        )
        self._launched: deque[_Launch] = deque()
        self._returned: list[Tensor] = []
        self.shortage: torch.OutOfMemoryError | None = None  # the newest that ended a sequence
        self._warm()

    @classmethod
    def open(cls, checkpoint: str | Path, options: EngineOptions | None = None) -> Self:
        """From a checkpoint directory or hub revision. Raises `ModelMissing`, `ModelInvalid`, `EngineUnavailable`."""
        directory = find_checkpoint(checkpoint)
        t3 = TensorFile(directory / ENGLISH.t3)
        conditionals = read_conditionals(directory / ENGLISH.conditionals)["t3"]
        speaker, prompt = conditionals.get("speaker_emb"), conditionals.get("cond_prompt_speech_tokens")
        try:
            voice = SpeakerPrompt.checked(speaker, prompt, read_config(t3))
        except InvalidValue as error:
            raise ModelInvalid(f"{directory / ENGLISH.conditionals} does not fit the model: {error}") from error
        return cls(t3, directory / ENGLISH.tokenizer, voice, options)

    def add(
        self,
        sequence_id: str,
        text: str,
        *,
        voice: SpeakerPrompt | None = None,
        parameters: SamplingParameters | None = None,
        max_tokens: int | None = None,
        due: float = 0.0,
    ) -> Sequence:
        """Queue a text of one segment; who is `due` first gets room first.

        `max_tokens` is by default the model's own cap, 1000 or 40 s of speech, but no more than two thirds of a slot.
        Raises `NothingToSpeak`, `TextTooLong`, `InvalidValue` with the parameter's name, or `Overloaded`.
        """
        parameters = parameters or SamplingParameters()
        check_parameters(parameters)
        limit = max_tokens if max_tokens is not None else min(self.config.most_tokens, self.options.positions * 2 // 3)
        check_max_tokens(limit, self.config.speech_positions - 1)
        voice = voice or self.default_voice
        if voice is None:
            raise InvalidValue("this model has no voice of its own; give one", param="voice")
        room = self.options.positions - limit - self.config.prompt_positions(0)
        if room < 1:
            wanted = f"{limit} tokens leave no room for a text in a slot of {self.options.positions} positions"
            raise InvalidValue(wanted, param="max_tokens")
        text_tokens = self._text.encode(text, longest=min(self.config.longest_text, room))
        sequence = Sequence(
            id=sequence_id,
            text_tokens=text_tokens,
            prompt_positions=self.config.prompt_positions(len(text_tokens)),
            max_tokens=limit,
            seed=parameters.seed if parameters.seed is not None else secrets.randbits(63),
            parameters=parameters,
            due=due,
            voice=voice,
        )
        self.scheduler.add(sequence)
        return sequence

    def cancel(self, sequence_id: str) -> None:
        """End a sequence; its slots are free for the next tick. Unknown ids are ignored."""
        self.scheduler.cancel(sequence_id)

    def tick(self) -> list[Sequence]:
        """Do the next piece of work; the sequences that have more tokens or have ended through it.

        Memory that runs out in a prefill ends that sequence. Anything else that goes wrong ends all that this tick was
        for and is raised; the others, and the engine, can go on if the device can.
        """
        plan = self.scheduler.plan()
        try:
            for chunk in plan.prefill:
                self._prefill(chunk)
            decoding = [sequence for sequence in plan.decode if not sequence.finished]
            if decoding:
                self._decode(decoding)
        except BaseException as error:
            failed = _said_of(error)
            for sequence in (*(chunk.sequence for chunk in plan.prefill), *plan.decode):
                self.scheduler.finish(sequence, Finish.FAILED, failed)
            raise
        return self._collect(ahead=_LAG if decoding and self.device.type == "cuda" else 0)

    def drop_caches(self) -> None:
        self._prompts.drop_caches()

    def run(self) -> None:
        while not self.scheduler.idle:
            self.tick()

    def capture(self, sizes: Iterable[int] | None = None) -> None:
        """Record CUDA graphs, largest first, of the steps with these numbers of rows, or of all; and of prefills."""
        for size in sorted(self.steps.sizes if sizes is None else sizes, reverse=True):
            for filtered in (False, True):
                self.steps.capture(size, filtered=filtered)
        for size in reversed(self.prefills.sizes):
            for rows in (2, 1):
                self.prefills.capture(rows, size, scratch=self.slots.scratch)

    def _prefill(self, chunk: PrefillChunk) -> None:
        sequence = chunk.sequence
        if sequence.finished:  # by an earlier chunk of the same tick
            return
        try:
            if sequence.prompt is None:
                sequence.prompt = self._prompts.encode(
                    sequence.text_tokens, sequence.voice, sequence.parameters.exaggeration, sequence.rows
                )
            self.prefills.run(sequence.prompt[:, chunk.start : chunk.stop], sequence.slots, chunk.start)
            if chunk.is_last:
                sequence.prompt = None
                self._state.admit(
                    sequence.slots[0], sequence.parameters, seed=sequence.seed, length=sequence.prompt_positions
                )
        except torch.OutOfMemoryError as error:
            self.scheduler.finish(sequence, Finish.FAILED, _said_of(error))
            self.shortage = error

    def _decode(self, sequences: list[Sequence]) -> None:
        # The two ways of a step agree but for rounding on CUDA, where `strict` therefore always takes the same.
        one_way = self.options.strict and self.device.type == "cuda"
        filtered = one_way or any(needs_sorting(sequence.parameters, self.config) for sequence in sequences)
        emitted = self.steps.run([sequence.slots for sequence in sequences], filtered=filtered)
        self._launched.append(self._returning(emitted, sequences))

    def _returning(self, emitted: Tensor, sequences: list[Sequence]) -> _Launch:
        """The tokens' way to the host, begun but not waited for."""
        if self.device.type != "cuda":
            return _Launch(sequences, emitted, None)
        if not self._returned:
            self._returned.append(torch.empty(max(2, self.slots.count), dtype=torch.int64, pin_memory=True))
        pinned = self._returned.pop()
        pinned[: len(emitted)].copy_(emitted, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return _Launch(sequences, pinned, arrived)

    def _collect(self, *, ahead: int) -> list[Sequence]:
        """Read the tokens of all but the newest `ahead` steps."""
        advanced: list[Sequence] = []
        while len(self._launched) > ahead:
            launch = self._launched.popleft()
            if launch.arrived is not None:
                launch.arrived.synchronize()
                self._returned.append(launch.tokens)
            for sequence, token in zip(launch.sequences, launch.tokens.tolist(), strict=False):
                if not sequence.finished and token != NOT_SAMPLED:
                    self._receive(sequence, token)
                    advanced.append(sequence)
        return advanced

    def _receive(self, sequence: Sequence, token: int) -> None:
        if token == BROKEN:
            error = SynthesisFailed("the model's output for this text is not a number")
            self.scheduler.finish(sequence, Finish.FAILED, error)
            return
        sequence.tokens.append(token)
        if token == self.config.stop_speech:
            self.scheduler.finish(sequence, Finish.STOP)
        elif len(sequence.tokens) >= sequence.max_tokens:
            self.scheduler.finish(sequence, Finish.LENGTH)

    def _row_sizes(self) -> list[int]:
        most = self.slots.count
        sizes = [size for size in (GRAPH_ROWS if self.device.type == "cuda" else _CPU_ROWS) if size < most] + [most]
        if self.options.strict:
            return [most]
        return sizes if self.device.type == "cuda" else self.t3.agreeing_rows(sizes)

    def _warm(self) -> None:
        """Compile what compiles at first use, on the scratch slot."""
        scratch = self.slots.scratch
        embeddings = torch.zeros(2, 2, self.config.dim, device=self.device)
        self.t3.prefill(self.slots, embeddings, torch.full((2,), scratch, device=self.device), 0)
        for filtered in (False, True):
            self._step(Batch.empty(2, 2, scratch=scratch, device=self.device), filtered)


@dataclass(frozen=True, slots=True)
class _Launch:
    """A step whose tokens have not been read: whose they are, where they arrive, and the event of it."""

    sequences: list[Sequence]
    tokens: Tensor
    arrived: torch.cuda.Event | None


def _said_of(error: BaseException) -> FleetError:
    if isinstance(error, torch.OutOfMemoryError):
        return EngineLost("the device's memory is used up", retry_after=1)
    return SynthesisFailed("the engine failed at this text")
