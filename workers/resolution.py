"""A request made complete: which voice, emotion, language and parameters it is spoken with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, fields, replace

from fleet.contract import AudioFormat
from fleet.errors import InvalidValue, ModelNotFound, TextTooLong
from fleet.speech_contract import SpeechParameters, SpeechRequest, SynthesisRequest
from fleet.stream_contract import Start
from workers.engine.base import Capabilities, SamplingParameters
from workers.engine.pauses import check_pauses
from workers.loudness import can_measure
from workers.voices.records import EmotionRecord, VoiceRecord
from workers.voices.snapshot import Snapshot

MODEL_ALIASES = ("chatterbox", "tts-1", "tts-1-hd", "gpt-4o-mini-tts")
"""Names clients ask for without knowing what runs here; each means this fleet's model."""

_SEED_BITS = 32
"""Of a seed that is drawn: any program that reads the answer can hold it exactly."""

_SAMPLING = tuple(field.name for field in fields(SamplingParameters))


@dataclass(frozen=True, slots=True)
class Speech:
    """All that a synthesis needs. `ignored` names what the caller asked for and this engine does not honour.

    `parameters.seed` is always set: where the request has none, one is drawn, so that the sound can be made again.
    """

    text: str
    text_field: str
    audio_format: AudioFormat
    voice: VoiceRecord
    emotion: EmotionRecord | None
    language: str | None
    parameters: SamplingParameters
    seed: int
    speed: float
    ignored: tuple[str, ...]
    loudness: float | None = None


def resolve(
    request: SpeechRequest | SynthesisRequest | Start,
    *,
    capabilities: Capabilities,
    library: Snapshot,
    max_text_chars: int,
    loudness: float | None = None,
) -> Speech:
    """Each parameter from the first that sets it: the request, its emotion profile, the voice, the server.

    The voice is the one that the request names, else the first of the emotion's voices that there is, else the default
    one. The language is the request's, else the voice's where this engine speaks it, else that of the engine's voice.
    `loudness`, in LUFS, is the server's.

    Raises `TextTooLong`, `VoiceNotFound`, `EmotionNotFound`, `ModelNotFound` or `InvalidValue`, naming the field.
    """
    if isinstance(request, SpeechRequest):
        text, text_field, audio_format = request.input, "input", request.response_format
    elif isinstance(request, SynthesisRequest):
        text, text_field, audio_format = request.text, "text", request.format
    else:
        text, text_field, audio_format = "", "text", request.format  # the text is yet to be written
    if len(text) > max_text_chars:
        message = f"the text holds {len(text)} characters; at most {max_text_chars} are spoken at once"
        raise TextTooLong(message, param=text_field)
    check_pauses(text, text_field)
    _check_model(request.model, capabilities)
    emotion = None if request.emotion is None else library.find_emotion(request.emotion)
    voice = _voice(request, emotion, library)
    language, unspoken = _language(request, voice, capabilities)
    seed = secrets.randbits(_SEED_BITS) if request.seed is None else request.seed
    return Speech(
        text=text,
        text_field=text_field,
        audio_format=audio_format,
        voice=voice,
        emotion=emotion,
        language=language,
        parameters=replace(_parameters(request, emotion, voice), seed=seed),
        seed=seed,
        speed=request.speed,
        loudness=(loudness if request.loudness is None else request.loudness) if can_measure() else None,
        ignored=tuple(sorted({*_ignored(request, capabilities), *unspoken})),
    )


def _voice(request: SpeechParameters, emotion: EmotionRecord | None, library: Snapshot) -> VoiceRecord:
    if request.voice_name is not None:
        return library.find_voice(request.voice_name)
    named = () if emotion is None else emotion.voices
    return next((voice for voice_id in named if (voice := library.voice(voice_id)) is not None), library.default)


def _language(
    request: SpeechParameters, voice: VoiceRecord, capabilities: Capabilities
) -> tuple[str | None, tuple[str, ...]]:
    """The language to speak, None for the engine voice's own, and `("language",)` where the voice's is not known."""
    if request.language is not None:
        return find_language(request.language, capabilities.languages), ()
    if voice.builtin or voice.language is None:
        return None, ()
    try:
        return find_language(voice.language, capabilities.languages), ()
    except InvalidValue:
        return None, ("language",)


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


def _parameters(request: SpeechParameters, emotion: EmotionRecord | None, voice: VoiceRecord) -> SamplingParameters:
    parameters = SamplingParameters()
    for source in (voice.defaults, None if emotion is None else emotion.defaults, request):
        given = {name: value for name in _SAMPLING if (value := getattr(source, name, None)) is not None}
        parameters = replace(parameters, **given)
    return parameters


def _ignored(request: SpeechParameters, capabilities: Capabilities) -> tuple[str, ...]:
    asked = request.model_dump(exclude_none=True, exclude_unset=True)
    known_but_idle = {*_SAMPLING, "instructions"} - capabilities.parameters
    unmeasured = set() if can_measure() else {"loudness"}
    return tuple(sorted((known_but_idle | unmeasured) & asked.keys()))
