"""What goes wrong on the engine's thread: who hears of it, who does not, and when the engine gives up."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from fleet.errors import EngineLost, FleetError, InternalError, SynthesisFailed
from tests.running import wait_for
from tests.workers.engine.chatterbox.listening import (
    Gate,
    again,
    another_voice,
    begin,
    new_job,
    opened,
    raising,
    record_sequences,
    speak,
    wait_idle,
)
from workers.engine.base import Job, Quality, Samples
from workers.engine.chatterbox import speeches
from workers.engine.chatterbox.engine import ChatterboxEngine
from workers.engine.chatterbox.mishaps import Mishaps
from workers.engine.chatterbox.s3gen import EulerBatch, S3Gen

STUCK_AFTER_S = 0.5
ILLEGAL_ACCESS = "CUDA error: an illegal memory access was encountered"


@dataclass
class Victim:
    """An engine of a test's own, with a job whose sound it knows."""

    engine: ChatterboxEngine
    job: Job
    expected: Samples

    def is_whole(self) -> None:
        """Nothing is held, and the same job gives the same sound as before."""
        wait_idle(self.engine)
        assert self.engine.status().ready
        assert np.array_equal(speak(self.engine, again(self.job)), self.expected)
        wait_idle(self.engine)

    def is_lost(self) -> str:
        """It says so, its thread has ended, and it takes nothing more; the reason."""
        wait_for(lambda: not self.engine._thread.is_alive(), 2, every_s=0.005)
        status = self.engine.status()
        assert status.fatal is not None
        assert (status.ready, status.reason) == (False, status.fatal)
        assert (status.running_jobs, status.queued_jobs) == (0, 0)
        assert isinstance(failure(self.engine, self.job), EngineLost)
        return status.fatal


OPTIONS: dict[str, Any] = {"max_tokens": 20, "n_steps": 3, "max_rows": 4}


@pytest.fixture(scope="module")
def shared_victim(tiny_checkpoint: Path) -> Iterator[Victim]:
    with opened(tiny_checkpoint, **OPTIONS) as engine:
        job = new_job("The words of the day.")
        yield Victim(engine, job, speak(engine, job))


@pytest.fixture
def victim(shared_victim: Victim, monkeypatch: pytest.MonkeyPatch) -> Iterator[Victim]:
    """Shared, but for its memory of what went wrong; each test ends with it whole."""
    monkeypatch.setattr(shared_victim.engine, "_mishaps", Mishaps(shared_victim.engine._model.drop_caches))
    with capture_logs():
        yield shared_victim
        wait_idle(shared_victim.engine)


@pytest.fixture
def doomed(tiny_checkpoint: Path, shared_victim: Victim) -> Iterator[Victim]:
    """One whose engine will not outlive the test."""
    with capture_logs(), opened(tiny_checkpoint, **OPTIONS) as engine:
        yield Victim(engine, shared_victim.job, shared_victim.expected)


def failure(engine: ChatterboxEngine, job: Job) -> FleetError:
    with pytest.raises(FleetError) as raised:
        speak(engine, again(job))
    return raised.value


PLACES = ("prefill", "decode", "voice", "encode", "place", "euler", "render")


def place(engine: ChatterboxEngine, name: str) -> tuple[object, str]:
    """A method that the engine's thread calls for every job."""
    vocoder = engine._vocoder
    return {
        "prefill": (engine._tokens.prefills, "run"),
        "decode": (engine._tokens.steps, "run"),
        "voice": (vocoder._voices, "get"),
        "encode": (vocoder._s3gen, "encode"),
        "place": (EulerBatch, "place"),
        "euler": (EulerBatch, "step"),
        "render": (vocoder._renderer, "render"),
    }[name]


@pytest.mark.parametrize("where", PLACES)
def test_memory_that_runs_out_costs_one_job(victim: Victim, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """It is told that another worker could serve it and when to come again; memory that only saved work is given up."""
    voices = victim.engine._model.voices
    assert voices.nbytes > 0
    raising(monkeypatch, *place(victim.engine, where), torch.OutOfMemoryError("by the test"))
    error = failure(victim.engine, victim.job)
    assert isinstance(error, EngineLost)
    assert error.status == 503
    assert error.retry_after
    wait_for(lambda: voices.nbytes == 0, 1, every_s=0.001)
    victim.is_whole()


@pytest.mark.parametrize("where", ["prefill", "decode", "voice", "render"])
def test_memory_that_keeps_running_out_ends_the_engine(
    doomed: Victim, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The third time within a minute; until then each job hears of it, those that wait at the end as well."""
    raising(monkeypatch, *place(doomed.engine, where), torch.OutOfMemoryError("by the test"), times=None)
    for _ in range(2):
        assert isinstance(failure(doomed.engine, doomed.job), EngineLost)
        assert doomed.engine.status().ready
    listeners = []
    for _ in range(4):
        with suppress(EngineLost):  # the later ones may find that it has ended already
            listeners.append(begin(doomed.engine, again(doomed.job))[1])
    assert listeners
    for listener in listeners:
        with pytest.raises(EngineLost):
            listener.whole()
    assert "memory ran out 3 times" in doomed.is_lost()


@pytest.mark.parametrize("where", PLACES)
def test_error_of_ours_costs_the_jobs_it_happened_to(
    victim: Victim, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """With a typed error that tells nothing of the inside; the engine goes on as if nothing had been."""
    raising(monkeypatch, *place(victim.engine, where), ValueError("by the test"))
    error = failure(victim.engine, victim.job)
    assert isinstance(error, InternalError | SynthesisFailed)
    assert "by the test" not in error.message
    victim.is_whole()


@pytest.mark.parametrize("where", ["decode", "encode", "render"])
def test_error_that_keeps_coming_ends_the_engine(doomed: Victim, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """When the same kind of work has failed three times without a success in between."""
    raising(monkeypatch, *place(doomed.engine, where), ValueError("by the test"), times=None)
    for _ in range(2):
        assert isinstance(failure(doomed.engine, doomed.job), InternalError | SynthesisFailed)
        assert doomed.engine.status().ready
    assert isinstance(failure(doomed.engine, doomed.job), EngineLost)
    assert "by the test" in doomed.is_lost()


def test_errors_between_successes_end_nothing(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are."""
    for _ in range(4):
        with monkeypatch.context() as patch:
            raising(patch, *place(victim.engine, "encode"), ValueError("by the test"))
            assert isinstance(failure(victim.engine, victim.job), InternalError)
        assert len(speak(victim.engine, again(victim.job)))
    victim.is_whole()


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("decode", torch.AcceleratorError(ILLEGAL_ACCESS)),
        ("prefill", RuntimeError(f"{ILLEGAL_ACCESS}\nCompile with `TORCH_USE_CUDA_DSA`.")),
        ("encode", RuntimeError(f"{ILLEGAL_ACCESS}\nCompile with `TORCH_USE_CUDA_DSA`.")),
        ("render", torch.AcceleratorError(ILLEGAL_ACCESS)),
    ],
)
def test_lost_device_ends_the_engine_at_once(
    doomed: Victim, monkeypatch: pytest.MonkeyPatch, where: str, error: Exception
) -> None:
    """Every job in it is told that another worker could, whatever it was waiting for."""
    raising(monkeypatch, *place(doomed.engine, where), error)
    with Gate(monkeypatch, doomed.engine._tokens, "tick"):
        listeners = [begin(doomed.engine, again(doomed.job))[1] for _ in range(3)]
    for listener in listeners:
        with pytest.raises(EngineLost) as raised:
            listener.whole()
        assert raised.value.retry_after
    assert ILLEGAL_ACCESS in doomed.is_lost()
    doomed.engine.close()


def test_error_nobody_foresaw_ends_the_engine(doomed: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no job can be told of it, all are, and the process is told to be replaced."""
    raising(monkeypatch, doomed.engine._speaking, "go_on", ValueError("by the test"))
    with monkeypatch.context() as patch:
        patch.setattr("threading.excepthook", lambda _: None)
        assert isinstance(failure(doomed.engine, doomed.job), EngineLost)
        assert "by the test" in doomed.is_lost()


def test_failed_step_leaves_those_alone_that_were_not_in_it(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was being decoded is told; who waits for slots, and whose tokens are all there, goes on."""
    engine = victim.engine
    sequences = record_sequences(engine, monkeypatch)
    with Gate(monkeypatch, engine._vocoder._renderer, "render", nth=2) as gate:
        _, sounding = begin(engine, again(victim.job))
        assert gate.reached.wait(5)
        assert sequences[0].finished
        listeners = [begin(engine, again(victim.job))[1] for _ in range(3)]
        raising(monkeypatch, *place(engine, "decode"), ValueError("by the test"), nth=3)
    assert np.array_equal(sounding.whole(), victim.expected)
    for listener in listeners[:2]:
        with pytest.raises(SynthesisFailed):
            listener.whole()
    assert np.array_equal(listeners[2].whole(), victim.expected)
    victim.is_whole()


def test_failed_vocoding_leaves_those_alone_that_decode(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only whose sound was being made is told."""
    engine = victim.engine
    with Gate(monkeypatch, EulerBatch, "step", nth=2) as gate:
        _, sounding = begin(engine, again(victim.job))
        assert gate.reached.wait(5)
        _, decoding = begin(engine, again(victim.job))
        raising(monkeypatch, engine._vocoder._renderer, "render", ValueError("by the test"))
    with pytest.raises(InternalError):
        sounding.whole()
    assert np.array_equal(decoding.whole(), victim.expected)
    victim.is_whole()


def test_tokens_that_are_not_numbers_fail_one_job(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in the keys of one job's text: it is told, its neighbour's sound and the next in its slots are as ever."""
    engine = victim.engine
    run, steps = engine._tokens.steps.run, 0
    sequences = record_sequences(engine, monkeypatch)

    def poisoning(slots: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 5:
            for cache in (engine._tokens.slots.keys, engine._tokens.slots.values):
                cache[:, list(sequences[0].slots), :, 3] = torch.nan
        return run(slots, **options)

    monkeypatch.setattr(engine._tokens.steps, "run", poisoning)
    _, broken = begin(engine, again(victim.job))
    _, beside = begin(engine, again(victim.job))
    with pytest.raises(SynthesisFailed):
        broken.whole()
    assert np.array_equal(beside.whole(), victim.expected)
    victim.is_whole()


def test_sound_that_is_not_a_number_fails_one_job(victim: Victim, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN from the vocoder in one voice: its listener is told before he hears it, the others hear what they would."""
    engine = victim.engine
    voice = another_voice(engine)
    encode = engine._vocoder._s3gen.encode

    def poisoning(inputs: Any) -> Any:
        own = engine._vocoder._voices.get(voice.gen, voice.digest)
        return [
            fixed * torch.nan if one.prompt is own else fixed for fixed, one in zip(encode(inputs), inputs, strict=True)
        ]

    monkeypatch.setattr(engine._vocoder._s3gen, "encode", poisoning)
    _, broken = begin(engine, new_job(conditionals=voice))
    _, beside = begin(engine, again(victim.job))
    with pytest.raises(SynthesisFailed):
        broken.whole()
    assert broken.pieces == []
    assert np.array_equal(beside.whole(), victim.expected)
    victim.is_whole()


def test_segments_that_fail_together_fail_once(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two segments of a job whose sound arrives at once and is not a number: the job is told, its neighbour is not."""
    monkeypatch.setattr(speeches, "SEGMENT_CHARS", 25)
    with capture_logs() as logs, opened(tiny_checkpoint, max_tokens=12, vocoder_rows=4) as engine:
        monkeypatch.setattr(engine._vocoder, "_encoded_at_once", 4)  # as on CUDA
        beside = new_job("Nothing happens here.", seed=2)
        expected = speak(engine, beside)
        render = engine._vocoder._renderer.render
        seeds: list[int] = []

        def poisoning(parts: Any) -> Any:
            return [
                sound * torch.nan if part.seed in seeds else sound
                for part, sound in zip(parts, render(parts), strict=True)
            ]

        monkeypatch.setattr(engine._vocoder._renderer, "render", poisoning)
        with Gate(monkeypatch, engine._tokens, "tick") as gate:
            sequences = record_sequences(engine, monkeypatch)
            _, broken = begin(engine, new_job("The very same words. The very same words.", temperature=0, cfg_weight=0))
            assert gate.reached.wait(5)
            seeds += [sequence.seed for sequence in sequences]
            _, listener = begin(engine, again(beside))
        assert len(seeds) == 2
        with pytest.raises(SynthesisFailed):
            broken.whole()
        heard = listener.whole()
        # Equal; but without AVX-512 the bits of a product depend on how many rows it has.
        assert np.array_equal(heard, expected) or not torch.ops.mkldnn._is_mkldnn_bf16_supported()
        np.testing.assert_allclose(heard, expected, atol=1e-4)
        wait_idle(engine)
    assert logs == []


def test_row_that_could_not_be_filled_is_free(quick_s3gen: S3Gen) -> None:
    """A hop that fails while it is placed takes nothing from those that come after it."""
    batch = EulerBatch(quick_s3gen, 8, 2, ragged=False)
    with pytest.raises(KeyError):
        batch.place(torch.zeros(8, 240), torch.zeros(8, 80), cast(Quality, "best"))
    assert batch.empty


def test_stuck_thread_is_fatal(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it has made no step for as long as it may; a thread that has nothing to do is not stuck."""
    with opened(tiny_checkpoint, max_tokens=16, stuck_after_s=STUCK_AFTER_S) as engine:
        wait_idle(engine)
        time.sleep(2 * STUCK_AFTER_S)
        assert engine.status().ready
        with Gate(monkeypatch, EulerBatch, "step") as gate:
            _, listener = begin(engine, new_job())
            assert gate.reached.wait(5)
            stuck_at = time.monotonic()
            assert engine.status().fatal is None
            wait_for(lambda: engine.status().fatal is not None, STUCK_AFTER_S + 1, every_s=0.01)
            assert time.monotonic() - stuck_at > STUCK_AFTER_S / 2
            status = engine.status()
            assert "no step" in (status.fatal or "")
            assert (status.ready, status.running_jobs) == (False, 1)
        listener.whole()
