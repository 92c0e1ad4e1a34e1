"""What SillyTavern's Chatterbox provider asks, with its paths and its names: the API of Chatterbox-TTS-Server."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from fleet.contract import AudioFormat
from fleet.errors import MissingField, VoiceNotFound
from fleet.fields import Name, NullIsDefault, Text
from fleet.speech_contract import SynthesisRequest
from workers.api.audio import AudioResponse
from workers.api.speech import SOUND, resolved, speak
from workers.api.state import Worker, WorkerState
from workers.voices.snapshot import Snapshot

router = APIRouter(tags=["sillytavern"])

_NOBODY_YET = "S1"
"""The voice that the provider asks for before one has been chosen."""

_IDLE = ("split_text", "chunk_size")
"""Long texts are always split, at sentences."""

_LARGEST_SEED = 2**53


class PredefinedVoice(BaseModel):
    display_name: str
    filename: str
    voice_id: str
    language: str | None = None


class TtsRequest(BaseModel):
    """The provider's request. What other clients of that API send beside it is reported as ignored."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra={
            "examples": [
                {"text": "Hello.", "voice_mode": "predefined", "predefined_voice_id": "nova", "output_format": "wav"}
            ]
        },
    )

    text: Text
    voice_mode: Literal["predefined", "clone"] = "predefined"
    predefined_voice_id: Name | None = None
    reference_audio_filename: Name | None = Field(None, description="One of `/get_reference_files`.")
    output_format: Annotated[AudioFormat, NullIsDefault] = AudioFormat.wav
    temperature: Annotated[float, Field(allow_inf_nan=False, ge=0, le=5)] | None = None
    exaggeration: Annotated[float, Field(allow_inf_nan=False, ge=0, le=2)] | None = None
    cfg_weight: Annotated[float, Field(allow_inf_nan=False, ge=0, le=1)] | None = None
    seed: Annotated[int, Field(le=_LARGEST_SEED)] | None = Field(None, description="Below 0 is any.")
    speed_factor: Annotated[float, Field(allow_inf_nan=False, ge=0.25, le=4), NullIsDefault] = 1.0
    language: Name | None = None
    split_text: bool | None = Field(None, description="Accepted; long texts are always split.")
    chunk_size: int | None = Field(None, description="Accepted; texts are split at sentences.")


class TtsQuery(TtsRequest):
    """The same as a query, whose every value is text."""

    model_config = ConfigDict(extra="ignore")


@router.get("/get_predefined_voices")
async def get_predefined_voices(worker: WorkerState) -> list[PredefinedVoice]:
    """The engine's own voices."""
    library = await worker.library.current()
    return [
        PredefinedVoice(display_name=voice.name, filename=f"{voice.id}.wav", voice_id=voice.id, language=voice.language)
        for voice in library.voices
        if voice.builtin
    ]


@router.get("/get_reference_files")
async def get_reference_files(worker: WorkerState) -> list[str]:
    """The names of the voices made from recordings."""
    return [voice.name for voice in (await worker.library.current()).voices if not voice.builtin]


@router.post("/tts", status_code=200, response_class=AudioResponse, responses=SOUND)
async def tts(body: TtsRequest, request: Request, worker: WorkerState) -> AudioResponse:
    """Speak a text."""
    return await _spoken(body, request, worker)


@router.get("/tts-stream", status_code=200, response_class=AudioResponse, responses=SOUND)
async def tts_stream(body: Annotated[TtsQuery, Query()], request: Request, worker: WorkerState) -> AudioResponse:
    """The same by an address that an audio element can play."""
    return await _spoken(body, request, worker)


async def _spoken(body: TtsRequest, request: Request, worker: Worker) -> AudioResponse:
    response = speak(await resolved(await _native(body, worker), request, worker), worker)
    unknown = (body.model_extra or {}).keys() | (request.query_params.keys() - type(body).model_fields.keys())
    ignored = {name for name in body.model_fields_set if name in _IDLE} | unknown
    if ignored:
        told = {*response.headers.get("x-ignored-parameters", "").split(","), *map(_header_safe, ignored)} - {""}
        response.headers["x-ignored-parameters"] = ",".join(sorted(told)[:20])
    return response


async def _native(body: TtsRequest, worker: Worker) -> SynthesisRequest:
    field = "predefined_voice_id" if body.voice_mode == "predefined" else "reference_audio_filename"
    named: str | None = getattr(body, field)
    if body.voice_mode == "clone" and named is None:
        raise MissingField("reference_audio_filename names the voice to clone", param="reference_audio_filename")
    if named is not None:
        named = _voice(named, await worker.library.current(), field)
    seed = None if body.seed is None or body.seed < 0 else body.seed
    same = {"text", "temperature", "exaggeration", "cfg_weight", "language"}
    given = body.model_dump(include=same, exclude_none=True)
    return SynthesisRequest(**given, voice=named, seed=seed, speed=body.speed_factor, format=body.output_format)


def _voice(named: str, library: Snapshot, field: str) -> str | None:
    """The voice of that name, or of the file's name without its ending; None is the default one."""
    for name in (named, named.rpartition(".")[0]):
        try:
            return library.find_voice(name).id
        except VoiceNotFound:
            continue
    return None if named == _NOBODY_YET else library.find_voice(named, param=field).id


def _header_safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "", name)[:40]
