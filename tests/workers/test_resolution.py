"""A request made complete."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.contract import AudioFormat
from fleet.errors import EmotionNotFound, FleetError, InvalidValue, ModelNotFound, TextTooLong, VoiceNotFound
from fleet.library_contract import SpeakingDefaults
from fleet.speech_contract import Quality, SpeechRequest, SynthesisRequest
from workers.engine import base
from workers.engine.base import Capabilities, SamplingParameters
from workers.engine.espeak.speakers import VOICES
from workers.resolution import Speech, find_language, resolve
from workers.voices.records import EmotionRecord, VoiceRecord, slug
from workers.voices.seeds import SEEDS
from workers.voices.snapshot import Snapshot
from workers.voices.store import Changes

CAPABILITIES = Capabilities(
    engine="espeak",
    model="espeak-ng-1",
    device="cpu",
    sample_rate=24_000,
    demo_voice=True,
    clones_voices=True,
    voices=VOICES,
    languages=("de", "en", "en-gb", "en-us"),
    parameters=frozenset({"exaggeration"}),
)
STOCK_NAMES = (
    *("alloy", "ash", "ballad", "coral", "echo", "fable", "nova", "onyx", "sage", "shimmer", "verse"),
    *("marin", "cedar"),
)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def emotion(name: str, *voices: str, **defaults: Any) -> EmotionRecord:
    return EmotionRecord(slug(name, "e"), name, "", "", SpeakingDefaults(**defaults), voices, 1, NOW, NOW)


def kept(name: str, *aliases: str, language: str | None = None, **defaults: Any) -> VoiceRecord:
    return VoiceRecord(
        slug(name, "v"),
        name,
        language=language,
        aliases=aliases,
        defaults=SpeakingDefaults(**defaults),
    )


def library(*records: VoiceRecord | EmotionRecord, default: str | None = None) -> Snapshot:
    """Those, beside the engine's voices and the profiles that every library begins with."""
    seeds = [emotion(seed.name, **seed.model_dump(include=set(SpeakingDefaults.model_fields))) for seed in SEEDS]
    voices = [record for record in records if isinstance(record, VoiceRecord)]
    emotions = [*seeds, *(record for record in records if isinstance(record, EmotionRecord))]
    return Snapshot.empty(VOICES).after(Changes(1, default, True, [], voices, emotions))


def resolved(
    request: SpeechRequest | SynthesisRequest, max_text_chars: int = 100, view: Snapshot | None = None
) -> Speech:
    return resolve(
        request, capabilities=CAPABILITIES, library=library() if view is None else view, max_text_chars=max_text_chars
    )


def test_bare_text_takes_the_servers_defaults() -> None:
    """Nothing but a text is enough; the seed that is drawn is told."""
    speech = resolved(SpeechRequest(input="hi"))
    assert speech.voice.engine_voice is VOICES[0]
    assert speech.parameters == replace(SamplingParameters(), seed=speech.seed)
    assert 0 <= speech.seed < 2**32
    assert speech.seed != resolved(SpeechRequest(input="hi")).seed
    assert (speech.emotion, speech.language, speech.ignored) == (None, None, ())
    assert speech.audio_format is AudioFormat.mp3


RANGES = {
    "exaggeration": (0.0, 2.0),
    "cfg_weight": (0.0, 1.0),
    "temperature": (0.0, 5.0),
    "min_p": (0.0, 1.0),
    "top_p": (0.1, 1.0),
    "repetition_penalty": (1.0, 10.0),
}
parameters = st.fixed_dictionaries({name: st.none() | st.floats(low, high) for name, (low, high) in RANGES.items()})


@given(asked=parameters, mood=parameters, own=parameters, seed=st.none() | st.integers(0, 2**63 - 1))
def test_request_goes_before_emotion_before_voice_before_server(
    asked: dict[str, float | None], mood: dict[str, float | None], own: dict[str, float | None], seed: int | None
) -> None:
    """Each parameter comes from the first of the four that has it, whatever the others say."""
    view = library(kept("Anna", **cast(Any, own)), emotion("Sad", "anna", **cast(Any, mood)))
    request = SynthesisRequest.model_validate({"text": "hi", "emotion": "sad", "seed": seed, **asked})
    speech = resolved(request, view=view)
    server = SamplingParameters()
    for name in RANGES:
        candidates = (asked[name], mood[name], own[name], getattr(server, name))
        assert getattr(speech.parameters, name) == next(value for value in candidates if value is not None)
    assert speech.parameters.seed == speech.seed == (speech.seed if seed is None else seed)


@given(
    asked=st.none() | st.sampled_from(["anna", "BOB", "tenor"]),
    mood=st.none() | st.lists(st.sampled_from(["anna", "bob", "gone", "alto"]), max_size=3),
    default=st.none() | st.sampled_from(["anna", "bob", "gone", "tenor"]),
)
def test_voice_of_the_request_goes_before_the_emotions_before_the_default(
    asked: str | None, mood: list[str] | None, default: str | None
) -> None:
    """A voice that is not there any more is passed over."""
    view = library(kept("Anna"), kept("Bob"), *([] if mood is None else [emotion("sad", *mood)]), default=default)
    request = SynthesisRequest(text="hi", voice=asked, emotion=None if mood is None else "sad")
    there = [voice for voice in mood or [] if voice != "gone"]
    expected = (asked or "").lower() or next(iter(there), None) or (default if default != "gone" else None)
    assert resolved(request, view=view).voice.id == (expected or "alto")


def test_kept_voice_goes_before_the_engines_where_they_share_a_name() -> None:
    """So that OpenAI's names can be given to voices of one's own."""
    view = library(kept("Anna", "alloy"))
    assert resolved(SpeechRequest(input="hi", voice="Alloy"), view=view).voice.id == "anna"
    assert resolved(SpeechRequest(input="hi", voice="sage"), view=view).voice.id == "alto"


@pytest.mark.parametrize(
    ("asked", "own", "spoken", "ignored"),
    [
        ("de", "en-GB", "de", ()),
        (None, "en-GB", "en-gb", ()),
        (None, "de_AT", "de", ()),
        (None, None, None, ()),
        (None, "tlh", None, ("language",)),
    ],
)
def test_language_of_the_request_goes_before_the_voices(
    asked: str | None, own: str | None, spoken: str | None, ignored: tuple[str, ...]
) -> None:
    """A voice whose language the engine does not know speaks the engine's, and that is told."""
    speech = resolved(SpeechRequest(input="hi", voice="anna", language=asked), view=library(kept("Anna", language=own)))
    assert (speech.language, speech.ignored) == (spoken, ignored)


@pytest.mark.parametrize("quality", get_args(Quality))
def test_quality_reaches_the_engine(quality: Quality) -> None:
    """Each quality of the contract is one that engines know, and is passed on as it was given."""
    assert resolved(SpeechRequest(input="hi", quality=quality)).parameters.quality == quality
    assert quality in get_args(base.Quality)


@pytest.mark.parametrize("name", STOCK_NAMES)
def test_openai_voice_names_work_out_of_the_box(name: str) -> None:
    """Every stock name has a voice, as a string and as an object."""
    assert resolved(SpeechRequest(input="hi", voice=name)).voice.engine_voice in VOICES
    as_object = SpeechRequest.model_validate({"input": "hi", "voice": {"id": name.upper()}})
    assert resolved(as_object).voice == resolved(SpeechRequest(input="hi", voice=name)).voice


@pytest.mark.parametrize("model", [None, "tts-1", "tts-1-hd", "gpt-4o-mini-tts", "chatterbox", "espeak-ng-1"])
def test_openai_model_names_work_out_of_the_box(model: str | None) -> None:
    """A client that insists on a model it knows gets the one there is."""
    resolved(SpeechRequest(input="hi", model=model))


def test_idle_parameters_are_named_only_when_asked_for() -> None:
    """What the engine does not honour is reported, what nobody gave is not."""
    request = SpeechRequest(input="hi", temperature=0.5, seed=1, exaggeration=0.7, instructions="softly")
    assert resolved(request).ignored == ("instructions", "seed", "temperature")
    assert resolved(SpeechRequest(input="hi", emotion="calm")).ignored == ()


@pytest.mark.parametrize(
    ("request_", "error", "param"),
    [
        (SpeechRequest(input="x" * 101), TextTooLong, "input"),
        (SynthesisRequest(text="x" * 101), TextTooLong, "text"),
        (SpeechRequest(input="x", voice="nobody"), VoiceNotFound, "voice"),
        (SpeechRequest(input="x", emotion="none"), EmotionNotFound, "emotion"),
        (SpeechRequest(input="x", model="other"), ModelNotFound, "model"),
        (SpeechRequest(input="x", language="tlh"), InvalidValue, "language"),
    ],
)
def test_what_is_not_there_names_its_field(
    request_: SpeechRequest | SynthesisRequest, error: type[FleetError], param: str
) -> None:
    """Each refusal is typed and points at the field."""
    with pytest.raises(error) as refused:
        resolved(request_)
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("tag", "found"), [("DE", "de"), ("en_US", "en-us"), ("en-AU", "en"), ("de-AT-1996", "de"), ("en-GB", "en-gb")]
)
def test_language_falls_back_to_what_is_known_of_it(tag: str, found: str) -> None:
    """An unknown region gives the language itself, in any case and with either separator."""
    assert find_language(tag, CAPABILITIES.languages) == found
