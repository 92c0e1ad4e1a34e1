"""A request made complete: which voice, emotion, language and parameters it is spoken with."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from fleet.contract import AudioFormat, SpeechParameters, SpeechRequest, SynthesisRequest
from fleet.errors import InvalidValue, ModelNotFound, TextTooLong
from workers.engine.base import Capabilities, EngineVoice, SamplingParameters
from workers.voices.catalogue import VoiceCatalogue
from workers.voices.emotions import EmotionProfile, find_emotion

MODEL_ALIASES = ("chatterbox", "tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Names clients ask for without knowing what runs here; each means this fleet's model."""

_SAMPLING = tuple(field.name for field in fields(SamplingParameters))


@dataclass(frozen=True, slots=True)
class Speech:
    """All that a synthesis needs. `ignored` names what the caller asked for and this engine does not honour."""

    text: str
    text_field: str
    audio_format: AudioFormat
    voice: EngineVoice
    emotion: EmotionProfile | None
    language: str | None
    parameters: SamplingParameters
    speed: float
    ignored: tuple[str, ...]


def resolve(
    request: SpeechRequest | SynthesisRequest,
    *,
    capabilities: Capabilities,
    voices: VoiceCatalogue,
    max_text_chars: int,
) -> Speech:
    """Each parameter from the request, else from its emotion profile, else the server's default.

    Raises `TextTooLong`, `VoiceNotFound`, `EmotionNotFound`, `ModelNotFound` or `InvalidValue`, naming the field.
    """
    if isinstance(request, SpeechRequest):
        text, text_field, audio_format = request.input, "input", request.response_format
    else:
        text, text_field, audio_format = request.text, "text", request.format
    if len(text) > max_text_chars:
        message = f"the text holds {len(text)} characters; at most {max_text_chars} are spoken at once"
        raise TextTooLong(message, param=text_field)
    _check_model(request.model, capabilities)
    emotion = None if request.emotion is None else find_emotion(request.emotion)
    return Speech(
        text=text,
        text_field=text_field,
        audio_format=audio_format,
        voice=voices.find(request.voice_name),
        emotion=emotion,
        language=None if request.language is None else find_language(request.language, capabilities.languages),
        parameters=_parameters(request, emotion),
        speed=request.speed,
        ignored=_ignored(request, capabilities),
    )


def find_language(tag: str, known: tuple[str, ...]) -> str:
    """The language's own tag, or its primary subtag where the region is not known (BCP 47 lookup, RFC 4647 3.4)."""
    wanted = tag.casefold().replace("_", "-")
    while wanted:
        if wanted in known:
            return wanted
        wanted = wanted.rpartition("-")[0]
    raise InvalidValue(f"no voice speaks {tag!r}; there are: {', '.join(known)}", param="language")


def _check_model(model: str | None, capabilities: Capabilities) -> None:
    known = (capabilities.model, *MODEL_ALIASES)
    if model is not None and model not in known:
        raise ModelNotFound(f"there is no model {model!r}; there are: {', '.join(known)}", param="model")


def _parameters(request: SpeechParameters, emotion: EmotionProfile | None) -> SamplingParameters:
    parameters = SamplingParameters()
    for source in (emotion, request):
        given = {name: value for name in _SAMPLING if (value := getattr(source, name, None)) is not None}
        parameters = replace(parameters, **given)
    return parameters


def _ignored(request: SpeechParameters, capabilities: Capabilities) -> tuple[str, ...]:
    asked = request.model_dump(exclude_none=True, exclude_unset=True)
    known_but_idle = {*_SAMPLING, "instructions"} - capabilities.parameters
    return tuple(sorted(known_but_idle & asked.keys()))
