"""The token engine on CUDA: captured steps, strict seeds, no waiting, no growth."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.workers.engine.chatterbox.checkpoints import load_script, open_tokens, write_token_half
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.sequence import Sequence
from workers.engine.chatterbox.token_engine import TokenEngine

TEXTS = ("Short.", "A text of middling length, with a comma.", "Something that goes on for rather longer. " * 3)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """T3 of upstream's widths with four layers."""
    return write_token_half(load_script(), tmp_path_factory.mktemp("wide"), size="full", layers=4)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_token_half(load_script(), tmp_path_factory.mktemp("tiny"), size="tiny", layers=None)


@pytest.fixture(scope="module")
def captured(wide: Path) -> Iterator[TokenEngine]:
    """All graphs of steps up to 16 rows; tests leave it idle."""
    engine = open_tokens(wide, device="cuda", precision="bf16", max_rows=16, memory_share=0.2)
    engine.capture()
    yield engine
    assert engine.scheduler.free_slots == engine.slots.count


def crowd(engine: TokenEngine, *, offset: int = 0) -> list[list[int]]:
    """Sequences of every kind, two of them joining late, so that a run passes through several sizes of step."""
    kinds = [
        SamplingParameters(seed=offset),
        SamplingParameters(seed=offset + 1, cfg_weight=0.0),
        SamplingParameters(seed=offset + 2, cfg_weight=1.0, temperature=0.3),
        SamplingParameters(seed=offset + 3, temperature=0.0),
        SamplingParameters(seed=offset + 4, repetition_penalty=2.0, min_p=0.3, exaggeration=1.0),
        SamplingParameters(seed=offset + 5, top_p=0.8),
    ]

    def add(number: int) -> Sequence:
        text, tokens = TEXTS[number % len(TEXTS)], 12 + 9 * number
        return engine.add(f"{offset}-{number}", text, parameters=kinds[number], max_tokens=tokens)

    sequences = [add(number) for number in range(4)]
    for _ in range(8):
        engine.tick()
    sequences += [add(4), add(5)]
    engine.run()
    return [sequence.tokens for sequence in sequences]


def test_replayed_steps_are_the_eager_ones(captured: TokenEngine, wide: Path) -> None:
    """After changes of guidance, temperature and seed, and across sizes, graphs draw what eager steps draw."""
    eager = open_tokens(wide, device="cuda", precision="bf16", max_rows=16, memory_share=0.2, capture=False)
    before = captured.steps.replays
    for offset in (0, 100, 0):
        assert crowd(captured, offset=offset) == crowd(eager, offset=offset)
    assert captured.steps.replays > before
    assert captured.steps.eager_steps == 0
    assert eager.steps.replays == 0
    assert crowd(captured, offset=0) != crowd(captured, offset=200)


def test_strict_tokens_do_not_depend_on_company(wide: Path) -> None:
    """With one size of step, a seed's tokens are the same alone, in a crowd and in a reused slot."""
    engine = open_tokens(wide, device="cuda", precision="bf16", max_rows=16, memory_share=0.2, strict=True)
    engine.capture()
    parameters = SamplingParameters(seed=77)

    def speak() -> list[int]:
        sequence = engine.add("subject", TEXTS[1], parameters=parameters, max_tokens=60)
        while not sequence.finished:
            engine.tick()
        return sequence.tokens

    alone = speak()
    for number in range(5):
        others = SamplingParameters(seed=number, cfg_weight=0.0 if number == 2 else 0.5, top_p=0.7 + 0.1 * (number % 4))
        engine.add(f"other-{number}", TEXTS[number % 3], parameters=others, max_tokens=20 + 30 * number)
    for _ in range(5):
        engine.tick()
    assert speak() == alone
    engine.run()
    assert speak() == alone


def test_triton_and_sdpa_speak_the_same(wide: Path) -> None:
    """In float32 the two attentions give the same tokens."""
    options = {"device": "cuda", "precision": "fp32", "max_rows": 16, "memory_share": 0.2, "capture": False}
    assert crowd(open_tokens(wide, **options)) == crowd(open_tokens(wide, attention="sdpa", **options))


def test_cuda_and_cpu_speak_the_same(wide: Path) -> None:
    """In float32 a seed gives the CPU's tokens, but for near-ties: the first 12 of each sequence."""
    cpu = crowd(open_tokens(wide, device="cpu", precision="fp32", max_rows=16))
    gpu = crowd(open_tokens(wide, device="cuda", precision="fp32", max_rows=16, memory_share=0.2))
    assert [tokens[:12] for tokens in cpu] == [tokens[:12] for tokens in gpu]


def test_no_step_waits_or_allocates(captured: TokenEngine) -> None:
    """Forty steps of three sequences without one synchronising call and without one allocation on the device."""
    sequences = [captured.add(str(n), TEXTS[n], parameters=SamplingParameters(seed=n), max_tokens=80) for n in range(3)]
    while not all(sequence.tokens for sequence in sequences):
        captured.tick()
    allocated = torch.cuda.memory_stats()["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(40):
            captured.tick()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == allocated
    captured.run()


def test_bf16_is_near_fp32(wide: Path) -> None:
    """The first step's distribution is within 0.02 nats of float32's."""
    found: list[torch.Tensor] = []
    for precision in ("fp32", "bf16"):
        engine = open_tokens(wide, device="cuda", precision=precision, max_rows=4, memory_share=0.1, capture=False)
        original = engine.t3.step

        def record(*arguments: object, original: object = original) -> torch.Tensor:
            logits: torch.Tensor = original(*arguments)  # type: ignore[operator]  # the method it stands for
            found.append(logits[0].log_softmax(-1))
            return logits

        engine.t3.step = record  # type: ignore[method-assign, assignment]  # takes what the method takes
        engine.add("one", TEXTS[1], max_tokens=1)
        engine.run()
    exact, rounded = found
    assert 0 < (exact.exp() * (exact - rounded)).sum() < 0.02


def test_ten_thousand_requests_take_no_more_memory(tiny: Path) -> None:
    """A third of them cancelled; the device's memory and the free slots are what they were."""
    engine = open_tokens(tiny, device="cuda", precision="bf16", max_rows=64, memory_share=0.05, positions=160)
    engine.capture()
    reserved = 0
    for number in range(10_000):
        parameters = SamplingParameters(seed=number, cfg_weight=0.5 * (number % 2), temperature=0.1 * (number % 9))
        engine.add(str(number), "word " * (1 + number % 11), parameters=parameters, max_tokens=1 + number % 13)
        if number % 3 == 0:
            engine.cancel(str(number - 20))
        while engine.scheduler.waiting > 40:
            engine.tick()
        if number == 1000:
            gc.collect()
            reserved = torch.cuda.memory_reserved()
    engine.run()
    gc.collect()
    assert torch.cuda.memory_reserved() <= reserved
    assert engine.scheduler.free_slots == engine.slots.count
