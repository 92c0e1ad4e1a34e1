"""A request made complete."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from workers.voices.catalogue import VoiceCatalogue
from workers.voices.emotions import PROFILES, find_emotion

from fleet.contract import AudioFormat, Quality, SpeechRequest, SynthesisRequest
from fleet.errors import FleetError, InvalidValue, ModelNotFound, TextTooLong, VoiceNotFound
from workers.engine import base
from workers.engine.base import Capabilities, SamplingParameters
from workers.engine.espeak.speakers import VOICES
from workers.resolution import Speech, find_language, resolve

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


def resolved(request: SpeechRequest | SynthesisRequest, max_text_chars: int = 100) -> Speech:
    return resolve(request, capabilities=CAPABILITIES, voices=VoiceCatalogue(VOICES), max_text_chars=max_text_chars)


def test_bare_text_takes_the_servers_defaults() -> None:
    """Nothing but a text is enough."""
    speech = resolved(SpeechRequest(input="hi"))
    assert speech.voice is VOICES[0]
    assert speech.parameters == SamplingParameters()
    assert (speech.emotion, speech.language, speech.ignored) == (None, None, ())
    assert speech.audio_format is AudioFormat.mp3


@given(
    emotion=st.sampled_from([None, *(profile.name for profile in PROFILES)]),
    exaggeration=st.none() | st.floats(0, 2),
    cfg_weight=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(0, 2**63 - 1),
)
def test_request_goes_before_emotion_and_emotion_before_default(
    emotion: str | None, exaggeration: float | None, cfg_weight: float | None, seed: int | None
) -> None:
    """Each parameter comes from the first of the three that has it."""
    request = SynthesisRequest(text="hi", emotion=emotion, exaggeration=exaggeration, cfg_weight=cfg_weight, seed=seed)
    parameters = resolved(request).parameters
    profile = None if emotion is None else find_emotion(emotion)
    default = SamplingParameters()
    for name, given_value in (("exaggeration", exaggeration), ("cfg_weight", cfg_weight), ("seed", seed)):
        candidates = (given_value, getattr(profile, name, None), getattr(default, name))
        assert getattr(parameters, name) == next((value for value in candidates if value is not None), None)


@pytest.mark.parametrize("quality", get_args(Quality))
def test_quality_reaches_the_engine(quality: Quality) -> None:
    """Each quality of the contract is one that engines know, and is passed on as it was given."""
    assert resolved(SpeechRequest(input="hi", quality=quality)).parameters.quality == quality
    assert quality in get_args(base.Quality)


@pytest.mark.parametrize("name", STOCK_NAMES)
def test_openai_voice_names_work_out_of_the_box(name: str) -> None:
    """Every stock name has a voice, as a string and as an object."""
    assert resolved(SpeechRequest(input="hi", voice=name)).voice in VOICES
    as_object = SpeechRequest.model_validate({"input": "hi", "voice": {"id": name.upper()}})
    assert resolved(as_object).voice is resolved(SpeechRequest(input="hi", voice=name)).voice


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
