"""The token engine as its owner sees it: joining, leaving, failing, and giving everything back."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from fleet.errors import EngineLost, Overloaded, SynthesisFailed
from fleet.startup_errors import EngineUnavailable
from tests.workers.engine.chatterbox.checkpoints import open_tokens
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.options import choose_device, choose_precision
from workers.engine.chatterbox.sequence import Finish, Sequence
from workers.engine.chatterbox.token_engine import TokenEngine


def test_two_thousand_requests_leave_nothing(tiny: Path) -> None:
    """After 2,000 requests, a third of them cancelled at any moment, slots and memory are where they were."""
    engine = open_tokens(tiny, max_rows=12, max_waiting=40, positions=160)
    chance = random.Random(1)
    process = psutil.Process()
    live: list[Sequence] = []
    finished: dict[Finish | None, int] = {}
    resident = 0
    for number in range(2000):
        while engine.scheduler.waiting >= 30:
            engine.tick()
        parameters = SamplingParameters(seed=number, cfg_weight=chance.choice([0.0, 0.5]), temperature=chance.random())
        text = "word " * chance.randint(1, 12)
        live.append(engine.add(str(number), text, parameters=parameters, max_tokens=chance.randint(1, 12)))
        if chance.random() < 1 / 3:
            engine.cancel(chance.choice(live).id)
        if chance.random() < 0.5:
            engine.tick()
        for sequence in [s for s in live if s.finished]:
            finished[sequence.finish] = finished.get(sequence.finish, 0) + 1
            live.remove(sequence)
        if number == 500:
            gc.collect()
            resident = process.memory_info().rss
    engine.run()
    gc.collect()
    assert process.memory_info().rss - resident < 24 * 2**20
    assert engine.scheduler.free_slots == 12
    assert engine.scheduler.idle
    assert finished[Finish.CANCELLED] > 400
    assert finished[Finish.LENGTH] > 800
    assert set(finished) <= {Finish.CANCELLED, Finish.LENGTH, Finish.STOP}


def test_limits(tiny_engine: TokenEngine) -> None:
    """Exactly `max_tokens` are drawn."""
    sequences = [
        tiny_engine.add(str(n), "Hello.", max_tokens=n, parameters=SamplingParameters(seed=n)) for n in (1, 2, 9)
    ]
    tiny_engine.run()
    assert [(len(s.tokens), s.finish) for s in sequences] == [(n, Finish.LENGTH) for n in (1, 2, 9)]


def test_the_stop_token_ends_a_sequence(tiny_engine: TokenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows it is not drawn, and it is the last token."""
    probe = tiny_engine.add("probe", "Hello there.", max_tokens=12, parameters=SamplingParameters(seed=4))
    tiny_engine.run()
    stop = probe.tokens[7]
    changed = replace(tiny_engine.config, stop_speech=stop)
    monkeypatch.setattr(tiny_engine, "config", changed)
    monkeypatch.setattr(tiny_engine._state, "config", changed)
    sequence = tiny_engine.add("stopped", "Hello there.", max_tokens=12, parameters=SamplingParameters(seed=4))
    tiny_engine.run()
    assert sequence.finish is Finish.STOP
    assert sequence.tokens == probe.tokens[: probe.tokens.index(stop) + 1]


def test_cancelling_frees_the_slot_by_the_next_step(tiny: Path) -> None:
    """A waiting request takes the place of a cancelled one in the tick after."""
    engine = open_tokens(tiny, max_rows=2)
    first = engine.add("first", "Hello.", max_tokens=50)
    second = engine.add("second", "Hello.", max_tokens=3)
    for _ in range(4):
        engine.tick()
    assert first.tokens
    assert not second.slots
    engine.cancel("first")
    assert engine.tick() == [second]
    assert first.finish is Finish.CANCELLED
    engine.cancel("unknown")
    engine.run()
    assert second.finish is Finish.LENGTH


def test_logits_that_are_not_numbers_fail_one_request(tiny_engine: TokenEngine) -> None:
    """NaN in one sequence's cache ends it with a typed error; its neighbours' tokens are what they would have been."""
    expected = [
        tiny_engine.add(f"e{n}", "Hello there.", max_tokens=8, parameters=SamplingParameters(seed=n)) for n in (1, 2)
    ]
    tiny_engine.run()
    first, broken, last = (
        tiny_engine.add(f"s{n}", "Hello there.", max_tokens=8, parameters=SamplingParameters(seed=n)) for n in (1, 9, 2)
    )
    for _ in range(4):
        tiny_engine.tick()
    tiny_engine.slots.keys[:, broken.slots[1], :, 3] = torch.nan
    tiny_engine.run()
    assert broken.finish is Finish.FAILED
    assert isinstance(broken.error, SynthesisFailed)
    assert 0 < len(broken.tokens) < 8
    assert [first.tokens, last.tokens] == [sequence.tokens for sequence in expected]


def test_a_full_queue_is_said(tiny: Path) -> None:
    """The next request is refused with a time to come again; those that wait are served."""
    engine = open_tokens(tiny, max_rows=2, max_waiting=2)
    waiting = [engine.add(str(n), "Hello.", max_tokens=1) for n in range(2)]
    with pytest.raises(Overloaded) as refused:
        engine.add("more", "Hello.", max_tokens=1)
    assert refused.value.retry_after
    engine.run()
    assert all(sequence.finish is Finish.LENGTH for sequence in waiting)


def test_too_little_memory_is_said_at_start(tiny: Path) -> None:
    """With what is free and what is needed."""
    with pytest.raises(EngineUnavailable, match="MiB"):
        open_tokens(tiny, memory_share=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_kernels_and_devices_that_are_not_here_are_refused(tiny: Path) -> None:
    """With a line that says what would work."""
    with pytest.raises(EngineUnavailable, match="CUDA"):
        choose_device("cuda")
    with pytest.raises(EngineUnavailable, match="numba or sdpa"):
        open_tokens(tiny, attention="triton")


def test_precision_follows_the_processor() -> None:
    """bf16 by itself only where it is fast; a choice is obeyed."""
    cpu = torch.device("cpu")
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("amx_bf16", False) or capabilities.get("avx512_bf16", False)
    assert choose_precision("auto", cpu) is (torch.bfloat16 if fast else torch.float32)
    assert choose_precision("fp32", cpu) is torch.float32
    assert choose_precision("bf16", cpu) is torch.bfloat16


def test_bf16_speaks_as_fp32_does(wide: Path) -> None:
    """The first step's distribution in bf16 is within 0.01 nats of fp32's, on the same text and voice."""
    logits: list[torch.Tensor] = []
    for precision in ("fp32", "bf16"):
        engine = open_tokens(wide, precision=precision)
        kernels = engine._step.kernels
        original = kernels.sample

        def record(found: torch.Tensor, *arguments: object, original: object = original, **options: object) -> None:
            logits.append(found[0].log_softmax(-1))
            original(found, *arguments, **options)  # type: ignore[operator]  # the method it stands for

        kernels.sample = record  # type: ignore[method-assign, assignment]  # takes what the method takes
        engine.add("one", "The same words.", max_tokens=1)
        engine.run()
    exact, rounded = logits
    assert not torch.equal(exact, rounded)
    assert (exact.exp() * (exact - rounded)).sum() < 0.01


def failing_once(error: Exception, original: Callable[..., object]) -> Callable[..., object]:
    """The function, whose first call raises."""
    errors = [error]

    def call(*arguments: object, **options: object) -> object:
        if errors:
            raise errors.pop()
        return original(*arguments, **options)

    return call


@pytest.mark.parametrize(("where", "name"), [("_prompts", "encode"), ("prefills", "run"), ("steps", "run")])
def test_a_failed_tick_leaves_the_engine_whole(
    tiny_engine: TokenEngine, monkeypatch: pytest.MonkeyPatch, where: str, name: str
) -> None:
    """Who was part of it has failed, the slots are free, and what comes next is what it would have been."""
    parameters = SamplingParameters(seed=6)
    expected = tiny_engine.add("before", "Hello there.", parameters=parameters, max_tokens=6)
    tiny_engine.run()
    part = getattr(tiny_engine, where)
    monkeypatch.setattr(part, name, failing_once(ValueError("by the test"), getattr(part, name)))
    failed = [tiny_engine.add(f"failed-{n}", "Hello there.", max_tokens=6) for n in range(2)]
    with pytest.raises(ValueError, match="by the test"):
        tiny_engine.run()
    assert failed[0].finish is Finish.FAILED
    tiny_engine.run()
    assert tiny_engine.scheduler.free_slots == tiny_engine.slots.count
    after = tiny_engine.add("after", "Hello there.", parameters=parameters, max_tokens=6)
    tiny_engine.run()
    assert after.tokens == expected.tokens


def test_memory_that_runs_out_ends_one_request(tiny_engine: TokenEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error that says when to come again; its neighbour is served."""
    run = failing_once(torch.OutOfMemoryError("by the test"), tiny_engine.prefills.run)
    monkeypatch.setattr(tiny_engine.prefills, "run", run)
    first, second = (tiny_engine.add(str(n), "Hello there.", max_tokens=6) for n in range(2))
    tiny_engine.run()
    assert isinstance(first.error, EngineLost)
    assert first.error.retry_after
    assert (second.finish, len(second.tokens)) == (Finish.LENGTH, 6)


def test_an_engine_that_is_let_go_frees_its_memory(tiny: Path) -> None:
    """At once, without waiting for the cycle collector."""
    engine = open_tokens(tiny)
    engine.add("one", "Hello.", max_tokens=2)
    engine.run()
    keys = weakref.ref(engine.slots)
    gc.disable()
    try:
        del engine
        assert keys() is None
    finally:
        gc.enable()
