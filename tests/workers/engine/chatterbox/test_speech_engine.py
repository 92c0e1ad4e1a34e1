"""The engine as those who listen see it: sound, seeds, voices, long texts, slow readers, refusals and the end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fleet.contract import SAMPLE_RATE
from fleet.errors import EngineLost, InvalidValue, NothingToSpeak, Overloaded
from tests.running import wait_for
from tests.workers.engine.chatterbox.listening import (
    SAMPLES_PER_TOKEN,
    Gate,
    Listener,
    again,
    another_voice,
    hear,
    held,
    new_job,
    opened,
    record_sequences,
    speak,
    spoken_tokens,
    wait_idle,
)
from workers.engine.base import Conditionals, Job, Samples, SamplingParameters, rendered
from workers.engine.chatterbox import speeches
from workers.engine.chatterbox.engine import ChatterboxEngine
from workers.engine.chatterbox.speeches import SEGMENTS_AT_ONCE
from workers.engine.pauses import PARAGRAPH_PAUSE_S, SENTENCE_PAUSE_S

SENTENCES = tuple(f"This is sentence number {name}." for name in ("one", "two", "three", "four", "five", "six"))
SENTENCE_PAUSE, PARAGRAPH_PAUSE = round(SENTENCE_PAUSE_S * SAMPLE_RATE), round(PARAGRAPH_PAUSE_S * SAMPLE_RATE)


@pytest.fixture(scope="module")
def shared_brief_engine(tiny_checkpoint: Path) -> Iterator[ChatterboxEngine]:
    with opened(tiny_checkpoint, max_tokens=16) as engine:
        yield engine


@pytest.fixture
def brief_engine(shared_brief_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatterboxEngine]:
    """Shared; tests leave it idle. It gives each of `SENTENCES` a segment of its own, of 16 tokens at most."""
    monkeypatch.setattr(speeches, "SEGMENT_CHARS", 40)
    wait_idle(shared_brief_engine)
    yield shared_brief_engine
    wait_idle(shared_brief_engine)


async def test_sound_comes_hop_by_hop(speech_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 ms for each speech token, in several pieces, finite and not silent."""
    sequences = record_sequences(speech_engine, monkeypatch)
    pieces = [rendered(sound) async for sound in speech_engine.submit(new_job())]
    (sequence,) = sequences
    assert len(pieces) > 1
    assert sum(map(len, pieces)) == SAMPLES_PER_TOKEN * len(spoken_tokens(sequence))
    assert len(sequence.tokens) == 32
    assert len(spoken_tokens(sequence)) < 32
    assert all(piece.dtype == np.float32 and np.isfinite(piece).all() and piece.std() > 0 for piece in pieces)


async def test_first_sound_does_not_wait_for_the_last_token(
    speech_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the first piece comes, the text is still being decoded."""
    sequences = record_sequences(speech_engine, monkeypatch)
    finished: list[bool] = []
    listener = Listener(on_sound=lambda: finished.append(sequences[-1].finished))
    speech_engine.start(new_job(), listener)
    listener.whole()
    assert (finished[0], finished[-1]) == (False, True)


async def test_a_seed_is_a_sound(speech_engine: ChatterboxEngine) -> None:
    """The same seed gives the same samples, another seed others, and none a new one each time."""
    job = new_job(seed=5)
    expected = await hear(speech_engine, job)
    assert np.array_equal(expected, await hear(speech_engine, again(job)))
    assert not np.array_equal(expected, await hear(speech_engine, new_job(seed=6)))
    first, second = [await hear(speech_engine, new_job(seed=None)) for _ in range(2)]
    assert not np.array_equal(first, second)


async def test_temperature_zero_takes_the_likeliest_token(
    speech_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a seed the words come out alike, and with another seed only their sound differs."""
    sequences = record_sequences(speech_engine, monkeypatch)
    sounds = [await hear(speech_engine, new_job(temperature=0, seed=seed)) for seed in (None, 1, 2, 2)]
    assert len({tuple(sequence.tokens) for sequence in sequences}) == 1
    assert not np.array_equal(sounds[1], sounds[2])
    assert np.array_equal(sounds[2], sounds[3])


async def test_quality_is_work_on_the_same_words(
    speech_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft takes half the Euler steps of the standard and high quality twice as many; each sounds different."""
    sequences = record_sequences(speech_engine, monkeypatch)
    steps: list[int] = []
    sounds: list[Samples] = []
    for quality in ("draft", "standard", "high"):
        before = speech_engine.figures().euler_steps
        sounds.append(await hear(speech_engine, new_job(quality=quality)))
        steps.append(speech_engine.figures().euler_steps - before)
    assert steps == [2, 4, 8]
    assert len({tuple(sequence.tokens) for sequence in sequences}) == 1
    assert not any(np.array_equal(one, other) for one, other in zip(sounds, [*sounds[1:], sounds[0]], strict=True))


async def test_two_voices_at_once_are_never_mixed(speech_engine: ChatterboxEngine) -> None:
    """Each of two requests running together sounds as it does alone."""
    jobs = [new_job(), new_job(conditionals=another_voice(speech_engine))]
    alone = [await hear(speech_engine, job) for job in jobs]
    together = await asyncio.gather(*(hear(speech_engine, again(job)) for job in jobs))
    assert all(map(np.array_equal, alone, together))
    assert not np.array_equal(alone[0], alone[1])


async def test_ten_at_once_sound_as_each_alone(brief_engine: ChatterboxEngine) -> None:
    """Whatever their texts, voices, guidance and quality are, and although not all fit at once."""
    voices = (None, another_voice(brief_engine))
    jobs = [
        new_job(
            " ".join(SENTENCES[: 1 + number % 3]),
            conditionals=voices[number % 2],
            seed=number,
            cfg_weight=(0.5, 0.0, 1.0)[number % 3],
            temperature=0.2 * number,
            quality=("draft", "standard", "high")[number // 4],
        )
        for number in range(10)
    ]
    alone = [await hear(brief_engine, job) for job in jobs]
    together = await asyncio.gather(*(hear(brief_engine, again(job)) for job in jobs))
    assert list(map(np.array_equal, alone, together)) == [True] * 10


async def test_long_text_is_its_segments_one_after_the_other(
    brief_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, with silence between two sentences and a longer one between paragraphs."""
    text = f"{SENTENCES[0]} {SENTENCES[1]}\n\n{SENTENCES[2]}"
    sequences = record_sequences(brief_engine, monkeypatch)
    heard = await hear(brief_engine, new_job(text))
    one, two, three = (SAMPLES_PER_TOKEN * len(spoken_tokens(sequence)) for sequence in sequences)
    assert len(heard) == one + SENTENCE_PAUSE + two + PARAGRAPH_PAUSE + three
    assert not heard[one:][:SENTENCE_PAUSE].any()
    assert not heard[-three - PARAGRAPH_PAUSE : -three].any()
    # Segments begin with 20 ms of silence too, as upstream's do.
    assert np.count_nonzero(heard) > one + two + three - 4 * SAMPLE_RATE // 50


def test_each_segment_of_a_long_text_sounds_as_it_would_alone(
    brief_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own seed, which follows from the job's; only the fade into the pause is the long text's own."""
    sequences = record_sequences(brief_engine, monkeypatch)
    heard = speak(brief_engine, new_job(" ".join(SENTENCES[:3])), whole=True)
    for place, sequence in enumerate(sequences[:3]):
        alone = speak(brief_engine, new_job(SENTENCES[place], seed=sequence.seed), whole=True)
        part, heard = heard[: len(alone)], heard[len(alone) + SENTENCE_PAUSE :]
        assert np.array_equal(part[:-240], alone[:-240])
    assert len(heard) == 0
    assert len({sequence.seed for sequence in sequences[:3]}) == 3


def test_only_some_segments_of_a_job_are_decoded_at_once(
    brief_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long text leaves room for others, and its first sound comes before its last segments are begun."""
    at_once: list[int] = []
    sequences = record_sequences(brief_engine, monkeypatch)
    plan = brief_engine._tokens.scheduler.plan

    def counting() -> Any:
        at_once.append(sum(not sequence.finished for sequence in sequences))
        return plan()

    monkeypatch.setattr(brief_engine._tokens.scheduler, "plan", counting)
    begun: list[int] = []
    listener = Listener(on_sound=lambda: begun.append(len(sequences)))
    brief_engine.start(new_job(" ".join(SENTENCES)), listener)
    listener.whole()
    assert max(at_once) == SEGMENTS_AT_ONCE
    assert begun[0] < len(sequences) == len(SENTENCES)


def test_text_without_words_is_refused_in_the_end(speech_engine: ChatterboxEngine) -> None:
    """Punctuation has no sound, however many segments it makes."""
    for text in ("", " \n ", "...?!", "?! " * 300):
        with pytest.raises(NothingToSpeak):
            speak(speech_engine, new_job(text))


def test_what_cannot_be_spoken_is_passed_over(brief_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment of punctuation between two others leaves no gap of its own: the longer pause around it remains."""
    sequences = record_sequences(brief_engine, monkeypatch)
    for between in ("\n\n" + "* " * 20 + "\n\n", "\n\n" + "* " * 20, "... " * 11 + "\n\n"):
        heard = speak(brief_engine, new_job(SENTENCES[0] + between + SENTENCES[1]))
        one, two = (SAMPLES_PER_TOKEN * len(spoken_tokens(sequence)) for sequence in sequences)
        assert len(heard) == one + PARAGRAPH_PAUSE + two
        sequences.clear()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("exaggeration", 2.1), ("cfg_weight", -0.1), ("temperature", float("nan")), ("min_p", 1.1), ("top_p", -1)),
        *(("top_k", -1), ("repetition_penalty", 0), ("seed", -1), ("seed", 2**63), ("quality", "best")),
    ],
)
async def test_parameters_out_of_range_are_named(speech_engine: ChatterboxEngine, name: str, value: Any) -> None:
    """Before anything is queued."""
    with pytest.raises(InvalidValue) as refused:
        await hear(speech_engine, new_job(**{name: value}))
    assert refused.value.param == name


async def test_another_models_voice_does_not_speak_as_ours(speech_engine: ChatterboxEngine) -> None:
    """Conditionals that do not fit are refused before anything is queued; the engine goes on."""
    voice = another_voice(speech_engine)
    wider = replace(voice.t3, speaker=torch.ones(2 * voice.t3.speaker.numel()))
    for unfit in (Conditionals(), replace(voice, t3=wider), replace(voice, t3=replace(voice.t3, tokens=(10**6,)))):
        with pytest.raises(InvalidValue):
            await hear(speech_engine, replace(new_job(), conditionals=unfit))
    assert len(await hear(speech_engine, new_job()))


async def test_full_engine_says_so(tiny_checkpoint: Path) -> None:
    """One job more than there are places is refused with a time to come again; a place that is left is taken."""
    with opened(tiny_checkpoint, max_jobs=1) as engine:
        async with aclosing(engine.submit(new_job())) as sound:
            await anext(sound)
            with pytest.raises(Overloaded) as refused:
                await hear(engine, new_job())
            assert refused.value.retry_after
        wait_idle(engine)
        assert len(await hear(engine, new_job()))


@pytest.mark.parametrize("most", [1, 14])
async def test_limit_below_a_first_hop_is_kept(tiny_checkpoint: Path, most: int) -> None:
    """A segment ends at the last token it may have, though a stream's first piece would be longer."""
    with opened(tiny_checkpoint, max_tokens=most) as engine:
        assert 0 < len(await hear(engine, new_job())) <= most * SAMPLE_RATE / 25


async def test_closed_engine_ends_its_jobs(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that speak and those that wait are told that another worker could, later ones at once; twice is once."""
    with opened(tiny_checkpoint) as engine:
        async with aclosing(engine.submit(new_job())) as speaking, aclosing(engine.submit(new_job())) as waiting:
            await anext(speaking)
            with Gate(monkeypatch, engine._tokens, "tick") as gate:
                await asyncio.to_thread(gate.reached.wait)
                second = asyncio.ensure_future(anext(waiting))
                await asyncio.sleep(0)
                assert engine.status().queued_jobs == 1
                closing = asyncio.create_task(asyncio.to_thread(engine.close))
                await asyncio.to_thread(wait_for, lambda: engine._closed)
            await closing
            with pytest.raises(EngineLost):
                [samples async for samples in speaking]
            with pytest.raises(EngineLost):
                await second
        status = engine.status()
        assert (status.ready, status.fatal, status.running_jobs, status.queued_jobs) == (False, None, 0, 0)
        assert not engine._thread.is_alive()
        with pytest.raises(EngineLost) as refused:
            await hear(engine, new_job())
        assert refused.value.retry_after
        engine.close()


async def test_slow_reader_holds_only_himself_back(
    brief_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With enough sound waiting no more is made for him, others are served, and when he reads on nothing is missing."""
    limit = 2 * SAMPLE_RATE
    monkeypatch.setattr(speeches, "BUFFER_LIMIT", limit)
    job = new_job(" ".join(SENTENCES * 2), cfg_weight=0)
    expected = await hear(brief_engine, job)
    longest = 16 * SAMPLES_PER_TOKEN + PARAGRAPH_PAUSE
    assert len(expected) > 2 * limit
    async with aclosing(brief_engine.submit(again(job))) as sound:
        pieces = [await anext(sound)]
        (speech,) = brief_engine._speaking
        await asyncio.to_thread(wait_for, lambda: speech.sink.buffered > limit)
        await asyncio.to_thread(wait_for, lambda: brief_engine._tokens.scheduler.idle)
        hops = brief_engine.figures().hops
        assert len(await hear(brief_engine, new_job("A word."))) > 0
        assert brief_engine.figures().hops == hops + 1
        assert limit < speech.sink.buffered <= limit + (1 + SEGMENTS_AT_ONCE) * longest
        assert held(brief_engine)["running"] == 1
        pieces += [samples async for samples in sound]
    assert np.array_equal(np.concatenate([rendered(piece) for piece in pieces]), expected)


async def test_jobs_of_one_name_are_two_jobs(speech_engine: ChatterboxEngine) -> None:
    """Who gives an id twice hears both."""
    job = new_job()
    other = replace(new_job(seed=2), id=job.id)
    expected = [await hear(speech_engine, again(one)) for one in (job, other)]
    heard = await asyncio.wait_for(asyncio.gather(*(hear(speech_engine, one) for one in (job, other))), 10)
    assert all(map(np.array_equal, expected, heard))


def test_figures_count_what_was_done(speech_engine: ChatterboxEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens, steps and their rows, hops: by what one job with guidance takes, and nothing stays in use."""
    sequences = record_sequences(speech_engine, monkeypatch)
    before = speech_engine.figures()
    speak(speech_engine, new_job())
    after = speech_engine.figures()
    assert after.tokens - before.tokens == len(sequences[0].tokens)
    assert after.step_rows - before.step_rows == 2 * (after.steps - before.steps) == 2 * len(sequences[0].tokens)
    assert after.hops - before.hops == 2
    assert after.euler_rows - before.euler_rows == after.euler_steps - before.euler_steps == 4
    assert after.steps_per_s is not None
    assert after.device_bytes is None
    wait_idle(speech_engine)
    assert (speech_engine.figures().slots_used, speech_engine.figures().sequences_waiting) == (0, 0)


def test_engine_says_what_it_is(speech_engine: ChatterboxEngine) -> None:
    """It honours every sampling parameter, clones, and is no demo voice; it has told how long a first sound takes."""
    capabilities = speech_engine.capabilities
    assert capabilities.parameters == set(SamplingParameters.__dataclass_fields__)
    assert (capabilities.clones_voices, capabilities.demo_voice, capabilities.device) == (True, False, "cpu")
    assert capabilities.voices[0].id == Job("", "", "default").voice
    assert 0 < capabilities.first_sound_s < 10
