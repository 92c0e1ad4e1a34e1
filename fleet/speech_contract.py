"""The wire contract of speech: what may be asked for, and the events it may be answered with.

Ranges follow OpenAI's speech API and, for sampling parameters, upstream Chatterbox's `generate`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from fleet.contract import AudioFormat
from fleet.fields import Frozen, Name, NullIsDefault, Number, Text, Unicode

MOST_TOP_K = 100_000
"""Far above any vocabulary of speech tokens, and within every integer type."""

_TOKENS_PER_SECOND = 25
"""Chatterbox's speech tokens."""

Quality = Literal["draft", "standard", "high"]

StreamFormat = Literal["audio", "sse"]


class VoiceReference(Frozen):
    """OpenAI's object form of a voice."""

    id: Name


def _kind_of_voice(value: Any) -> str:
    return "object" if isinstance(value, Mapping | VoiceReference) else "name"


NamedVoice = Annotated[
    Annotated[Name, Tag("name")] | Annotated[VoiceReference, Tag("object")], Discriminator(_kind_of_voice)
]
"""Told apart beforehand, so that what is wrong is said of the form that was meant."""


class SpeakingParameters(Frozen):
    """How speech sounds. Each is null where it leaves the value that ranks next."""

    exaggeration: Annotated[Number, Field(ge=0, le=2)] | None = None
    cfg_weight: Annotated[Number, Field(ge=0, le=1)] | None = None
    temperature: Annotated[Number, Field(ge=0, le=5)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(strict=True, ge=0, le=MOST_TOP_K)] | None = None
    repetition_penalty: Annotated[Number, Field(ge=1, le=10)] | None = None


class SpeechParameters(SpeakingParameters):
    """What both speech routes take beside the text. A parameter left out takes the emotion's or the server's value."""

    model: Name | None = Field(None, description="A model's id, or one of OpenAI's model names.")
    voice: NamedVoice | None = Field(None, description="A voice's id, name or alias.")
    emotion: Name | None = Field(None, description="An emotion profile's name.")
    language: Name | None = Field(None, description="A language tag such as `de` or `en-us`.")
    speed: Annotated[Number, Field(ge=0.25, le=4), NullIsDefault] = 1.0
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None
    loudness: Annotated[Number, Field(ge=-40, le=-8)] | None = Field(
        None, description="LUFS that each segment of the text is brought to; null takes the server's, if it has one."
    )
    quality: Quality | None = Field(
        None,
        description="How many Euler steps the sound takes; words and voice of a seed stay the same. `draft` takes "
        "fewer than `standard`: faster and less accurate; `high` takes more: slower and more accurate.",
    )

    @property
    def voice_name(self) -> str | None:
        return self.voice.id if isinstance(self.voice, VoiceReference) else self.voice


class SpeechRequest(SpeechParameters):
    """`POST /v1/audio/speech`: OpenAI's request with this project's extensions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "tts-1", "voice": "alloy", "input": "Hello from the fleet.", "response_format": "wav"}
            ]
        }
    )

    input: Text
    response_format: Annotated[AudioFormat, NullIsDefault] = AudioFormat.mp3
    stream_format: Annotated[StreamFormat, NullIsDefault] = Field(
        "audio", description="Bare sound, or OpenAI's server-sent events."
    )
    instructions: Unicode | None = Field(None, description="Accepted for OpenAI's clients; no engine honours it.")


class SynthesisRequest(SpeechParameters):
    """`POST /synthesize`: the native request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"text": "Hello from the fleet.", "emotion": "expressive", "format": "wav"}]}
    )

    text: Text
    format: Annotated[AudioFormat, NullIsDefault] = AudioFormat.wav


class StreamRequest(SynthesisRequest):
    """`POST /synthesize/stream`: the native request, answered as server-sent events unless told otherwise."""

    stream_format: Annotated[StreamFormat, NullIsDefault] = "sse"


class SpeechAudioDelta(BaseModel):
    """OpenAI's `speech.audio.delta`: a piece of the file in base64."""

    type: Literal["speech.audio.delta"] = "speech.audio.delta"
    audio: str


class SpeechSegments(BaseModel):
    """The pieces of the text that are spoken one by one, in order; before any sound. Not on OpenAI's route."""

    type: Literal["speech.segments"] = "speech.segments"
    segments: list[str]


class SpeechSegmentDone(BaseModel):
    """Segment `index`, from 0, is over: it ends at `audio_s` seconds of the sound, with the pause behind it.

    Not on OpenAI's route.
    """

    type: Literal["speech.segment.done"] = "speech.segment.done"
    index: int
    audio_s: float


class SpeechUsage(BaseModel):
    """`input_tokens` are the text's characters, `output_tokens` 40 ms each of the sound that is sent."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


def usage_of(chars: int, audio_s: float) -> SpeechUsage:
    spoken = math.ceil(audio_s * _TOKENS_PER_SECOND)
    return SpeechUsage(input_tokens=chars, output_tokens=spoken, total_tokens=chars + spoken)


class SpeechAudioDone(BaseModel):
    """OpenAI's `speech.audio.done`: the whole sound has been sent."""

    type: Literal["speech.audio.done"] = "speech.audio.done"
    usage: SpeechUsage
