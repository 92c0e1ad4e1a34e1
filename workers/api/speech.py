"""Speech: OpenAI's route and the native one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from fleet.contract import AudioFormat, ErrorBody, SpeechRequest, SynthesisRequest
from workers.api.audio import AudioResponse
from workers.api.state import Worker, WorkerState
from workers.resolution import Speech, resolve

router = APIRouter(tags=["speech"])

SOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The sound, as it is made.",
        "content": {media.media_type: {"schema": {"type": "string", "format": "binary"}} for media in AudioFormat},
    },
    "4XX": {"model": ErrorBody, "description": "The request is at fault; `param` names the field."},
    "5XX": {"model": ErrorBody, "description": "The service is at fault."},
}


@router.post("/v1/audio/speech", status_code=200, response_class=AudioResponse, responses=SOUND)
async def create_speech(body: SpeechRequest, request: Request, worker: WorkerState) -> AudioResponse:
    """Speak a text, as OpenAI's speech API does."""
    return speak(await resolved(body, request, worker), worker)


@router.post("/synthesize", status_code=200, response_class=AudioResponse, responses=SOUND)
async def synthesize(body: SynthesisRequest, request: Request, worker: WorkerState) -> AudioResponse:
    """Speak a text."""
    return speak(await resolved(body, request, worker), worker)


async def resolved(body: SpeechRequest | SynthesisRequest, request: Request, worker: Worker) -> Speech:
    """The request against the library as it is now; what it is goes into the log."""
    speech = resolve(
        body,
        capabilities=worker.engine.capabilities,
        library=await worker.library.current(),
        max_text_chars=worker.settings.max_text_chars,
    )
    request.state.log = {"chars": len(speech.text), "voice": speech.voice.id, "format": str(speech.audio_format)}
    return speech


def speak(speech: Speech, worker: Worker) -> AudioResponse:
    """The sound, with what was used told beside it."""
    headers = {"x-engine": worker.engine.capabilities.engine, "x-voice": speech.voice.id, "x-seed": str(speech.seed)}
    if speech.emotion is not None:
        headers["x-emotion"] = speech.emotion.id
    if speech.language is not None:
        headers["x-language"] = speech.language
    if speech.ignored:
        headers["x-ignored-parameters"] = ",".join(speech.ignored)
    return AudioResponse(worker.synthesis.audio(speech), media_type=speech.audio_format.media_type, headers=headers)
