"""The wire contract of `/v1/audio/stream`: the JSON messages of both sides; sound is binary."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, TypeAdapter

from fleet.contract import SAMPLE_RATE, AudioFormat
from fleet.fields import Frozen, NullIsDefault, Unicode
from fleet.speech_contract import SpeechParameters, SpeechUsage


class Start(SpeechParameters):
    """How to speak; before any text. Without it the defaults hold."""

    type: Literal["start"] = "start"
    format: Annotated[AudioFormat, NullIsDefault] = AudioFormat.pcm


class WrittenText(Frozen):
    """The text goes on: a word, a part of one, or many sentences."""

    type: Literal["text"] = "text"
    text: Unicode


class Flush(Frozen):
    """Speak what is there although no sentence has ended, and finish this utterance's file."""

    type: Literal["flush"] = "flush"


class Cancel(Frozen):
    """Forget what has not been said, and stop what is being said."""

    type: Literal["cancel"] = "cancel"


class End(Frozen):
    """No text will follow: speak the rest, then close."""

    type: Literal["end"] = "end"


ClientMessage = Start | WrittenText | Flush | Cancel | End

CLIENT_MESSAGE: TypeAdapter[ClientMessage] = TypeAdapter(Annotated[ClientMessage, Field(discriminator="type")])


class Started(BaseModel):
    """What the connection speaks with; before anything else."""

    type: Literal["started"] = "started"
    request_id: str
    engine: str
    voice: str
    emotion: str | None
    language: str | None
    seed: int
    format: AudioFormat
    sample_rate: int = SAMPLE_RATE
    ignored_parameters: list[str]


class SentenceBegun(BaseModel):
    """The sound that follows is of this sentence."""

    type: Literal["sentence"] = "sentence"
    utterance: int
    text: str


class UtteranceDone(BaseModel):
    """All sound of the utterance has been sent, or none of it will be: its file is whole unless it was cancelled."""

    type: Literal["utterance.done"] = "utterance.done"
    utterance: int
    audio_s: float
    cancelled: bool


class Done(BaseModel):
    """All has been said; the connection is closed with 1000."""

    type: Literal["done"] = "done"
    usage: SpeechUsage
