"""The embedded engine: real libespeak-ng, no fakes."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet.errors import NothingToSpeak
from tests.running import wait_for
from workers.engine.base import Conditionals, Job, Samples, SamplingParameters, rendered
from workers.engine.espeak import EspeakEngine

TEXT = "The quick brown fox jumps over the lazy dog."

SCRIPTS = {
    "latin": "Hello there.",
    "greek": "Γεια σου κόσμε.",
    "cyrillic": "Привет, мир.",
    "arabic": "مرحبا بالعالم.",
    "hebrew": "שלום עולם.",
    "devanagari": "नमस्ते दुनिया।",
    "bengali": "ওহে বিশ্ব।",
    "tamil": "வணக்கம் உலகம்.",
    "telugu": "హలో వరల్డ్.",
    "kannada": "ಹಲೋ ವರ್ಲ್ಡ್.",
    "malayalam": "ഹലോ വേൾഡ്.",
    "gujarati": "હેલો વર્લ્ડ.",
    "gurmukhi": "ਸਤ ਸ੍ਰੀ ਅਕਾਲ.",
    "sinhala": "හෙලෝ වර්ල්ඩ්.",
    "thai": "สวัสดีชาวโลก",
    "burmese": "မင်္ဂလာပါ ကမ္ဘာ။",
    "georgian": "გამარჯობა მსოფლიო.",
    "armenian": "Բարեւ աշխարհ։",
    "ethiopic": "ሰላም ዓለም።",
    "han": "你好，世界。",
    "kana": "こんにちは世界。",
    "hangul": "안녕하세요 세계.",
    "cherokee": "ᎣᏏᏲ ᎡᎶᎯ.",
    "emoji": "Nice 😀👩‍👩‍👧‍👦🏳️‍🌈 work ✨",
    "ssml": '<speak><prosody rate="900%">fast</prosody><break time="9s"/> &amp; <![CDATA[x]]></speak>',
    "controls": "one\x00two\x01+99Pthree\x1b[31mfour\x7f\x85",
    "zalgo": "z" + "\u0301\u0336\u0489" * 200,
    "phonemes": "[[h@l'oU]] [[[[ ]]",
    "long word": "a" * 3000,
    "numbers": "1" * 500 + " 3.14159e400 -0x1F 1,000,000,000,000,000,000",
}


def job(
    text: str = TEXT,
    voice: str = "alto",
    language: str | None = None,
    conditionals: Conditionals | None = None,
    parameters: SamplingParameters | None = None,
) -> Job:
    return Job(
        id=os.urandom(8).hex(),
        text=text,
        voice=voice,
        language=language,
        conditionals=conditionals,
        parameters=parameters or SamplingParameters(),
    )


async def heard(engine: EspeakEngine, spoken: Job) -> Samples:
    async with aclosing(engine.submit(spoken)) as sound:
        return np.concatenate([rendered(chunk) async for chunk in sound])


async def test_sound_is_24_khz_speech_within_range(engine: EspeakEngine) -> None:
    """A sentence becomes a few seconds of audible sound that does not clip."""
    samples = await heard(engine, job())
    assert samples.dtype == np.float32
    assert 2.0 < len(samples) / 24_000 < 4.0
    assert float(np.sqrt(np.mean(samples**2))) > 0.02
    assert float(np.abs(samples).max()) <= 1.0


async def test_sound_arrives_before_the_text_is_spoken_to_its_end(engine: EspeakEngine) -> None:
    """The first chunk of a long text is there while the engine still works on the rest."""
    async with aclosing(engine.submit(job(TEXT * 200))) as sound:
        first = await anext(sound)
        status = engine.status()
        assert status.running_jobs + status.queued_jobs == 1
    assert len(first) / 24_000 < 1.1


async def test_same_job_gives_the_same_sound_whatever_ran_before(engine: EspeakEngine) -> None:
    """Speaking is a function of the job: another text and another language in between change nothing."""
    before = await heard(engine, job())
    await heard(engine, job("Ganz etwas anderes.", voice="baritone", language="de"))
    assert np.array_equal(before, await heard(engine, job()))


async def test_hundred_jobs_at_once_equal_the_same_jobs_alone(engine: EspeakEngine) -> None:
    """Jobs that take turns are never mixed, though some are long and some short."""
    jobs = [job(f"Text number {n}. {TEXT * (n % 7)}", voice=("alto", "tenor", "whisper")[n % 3]) for n in range(100)]
    together = await asyncio.gather(*(heard(engine, each) for each in jobs))
    for each, sound in zip(jobs, together, strict=True):
        assert np.array_equal(sound, await heard(engine, each)), each.text[:30]


async def test_short_job_does_not_wait_for_a_long_one(engine: EspeakEngine) -> None:
    """A short text that comes after a long one ends while the long one is still being spoken."""
    long = asyncio.create_task(heard(engine, job(TEXT * 220)))
    await asyncio.sleep(0.02)
    await heard(engine, job("Short."))
    assert not long.done()
    await long


async def test_job_of_a_slow_reader_waits_and_holds_bounded_sound() -> None:
    """A reader that stops is not buffered without end, and others are served meanwhile."""
    engine = EspeakEngine()
    try:
        async with aclosing(engine.submit(job(TEXT * 220))) as sound:
            await anext(sound)
            await asyncio.sleep(0.5)
            buffered = engine._rotation[0].outbox.buffered / 24_000
            assert 15 < buffered < 60
            assert engine.status().running_jobs == 0
            await heard(engine, job("Another one is served."))
            rest = [chunk async for chunk in sound]
            assert sum(map(len, rest)) / 24_000 > 400
    finally:
        engine.close()


async def test_closing_the_stream_cancels_the_job(engine: EspeakEngine) -> None:
    """Nothing of a job is left in the engine once its reader has gone."""
    async with aclosing(engine.submit(job(TEXT * 200))) as sound:
        await anext(sound)
    await asyncio.to_thread(wait_for, lambda: engine.status() == _idle(engine), 1.0)


async def test_cancel_ends_the_stream_early(engine: EspeakEngine) -> None:
    """A cancelled job's reader hears the end at once; an unknown id is ignored."""
    spoken = job(TEXT * 200)
    total = 0
    async with aclosing(engine.submit(spoken)) as sound:
        async for chunk in sound:
            total += len(chunk)
            engine.cancel(spoken.id)
            engine.cancel("unknown")
    assert total / 24_000 < 120


async def test_text_without_sound_is_refused(engine: EspeakEngine) -> None:
    """Punctuation and control characters alone are an error, not an empty success."""
    for text in ("...", "\x01\x02", "\u200b", "- - -"):
        with pytest.raises(NothingToSpeak):
            await heard(engine, job(text))


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS.keys())
@pytest.mark.parametrize("language", [None, "de", "cmn", "ar"])
async def test_no_script_harms_the_engine(engine: EspeakEngine, text: str, language: str | None) -> None:
    """Any script in any language is spoken or refused, and the next job is as ever."""
    try:
        assert len(await heard(engine, job(text, language=language)))
    except NothingToSpeak:
        assert not any(c.isascii() and c.isalnum() for c in text)
    assert len(await heard(engine, job("Still here."))) > 10_000


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1, max_size=400))
def test_no_text_harms_the_engine(engine: EspeakEngine, text: str) -> None:
    """Arbitrary Unicode is spoken or refused with a typed error."""

    async def speak() -> None:
        try:
            await heard(engine, job(text))
        except NothingToSpeak:
            return

    if not any("\ud800" <= c <= "\udfff" for c in text):
        asyncio.run(speak())


async def test_exaggeration_moves_pitch_range_and_rate(engine: EspeakEngine) -> None:
    """Lively speech varies more in pitch and takes less time than calm speech; 0 is monotone."""
    durations, spreads = [], []
    for exaggeration in (0.0, 0.5, 1.0, 2.0):
        parameters = SamplingParameters(exaggeration=exaggeration)
        samples = await heard(engine, job(TEXT * 2, voice="tenor", parameters=parameters))
        durations.append(len(samples))
        spreads.append(_pitch_spread(samples))
    assert durations == sorted(durations, reverse=True)
    assert durations[0] > 1.5 * durations[-1]
    assert spreads == sorted(spreads)
    assert spreads[-1] > 3 * spreads[0]


async def test_language_picks_the_voice(engine: EspeakEngine) -> None:
    """The same letters sound different in another language."""
    assert not np.array_equal(
        await heard(engine, job("Die Vase.", language="de")), await heard(engine, job("Die Vase.", language="en-us"))
    )


async def test_every_listed_language_speaks(engine: EspeakEngine) -> None:
    """What the capabilities list is really there."""
    for language in engine.capabilities.languages:
        started_at = time.monotonic()
        assert len(await heard(engine, job("a e i o u 1 2 3", language=language))), language
        assert time.monotonic() - started_at < 5


def _idle(engine: EspeakEngine) -> object:
    status = engine.status()
    return type(status)(ready=True, reason=None, running_jobs=0, queued_jobs=0)


def _pitch_spread(samples: Samples) -> float:
    """The standard deviation of F0 in Hz over the voiced frames, by Praat."""
    import parselmouth  # noqa: PLC0415 - no wheel on every machine

    track = parselmouth.Sound(samples.astype(np.float64), 24_000).to_pitch_ac(pitch_floor=60, pitch_ceiling=300)
    frequencies = track.selected_array["frequency"]
    return float(np.std(frequencies[frequencies > 0]))
