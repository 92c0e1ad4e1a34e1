"""Speech: OpenAI's route and the native one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from fleet.contract import AudioFormat, ErrorBody, SpeechRequest, SynthesisRequest
from workers.api.audio import AudioResponse
from workers.api.state import Worker, WorkerState
from workers.resolution import Speech, resolve

router = APIRouter(tags=["speech"])

_SOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The sound, as it is made.",
        "content": {media.media_type: {"schema": {"type": "string", "format": "binary"}} for media in AudioFormat},
    },
    "4XX": {"model": ErrorBody, "description": "The request is at fault; `param` names the field."},
    "5XX": {"model": ErrorBody, "description": "The service is at fault."},
}


@router.post("/v1/audio/speech", status_code=200, response_class=AudioResponse, responses=_SOUND)
async def create_speech(body: SpeechRequest, request: Request, worker: WorkerState) -> AudioResponse:
    """Speak a text, as OpenAI's speech API does."""
    return _speak(body, request, worker)


@router.post("/synthesize", status_code=200, response_class=AudioResponse, responses=_SOUND)
async def synthesize(body: SynthesisRequest, request: Request, worker: WorkerState) -> AudioResponse:
    """Speak a text."""
    return _speak(body, request, worker)


def _speak(body: SpeechRequest | SynthesisRequest, request: Request, worker: Worker) -> AudioResponse:
    speech = resolve(
        body,
        capabilities=worker.engine.capabilities,
        voices=worker.voices,
        max_text_chars=worker.settings.max_text_chars,
    )
    request.state.log = {"chars": len(speech.text), "voice": speech.voice.id, "format": str(speech.audio_format)}
    return AudioResponse(
        worker.synthesis.audio(speech), media_type=speech.audio_format.media_type, headers=_headers(speech, worker)
    )


def _headers(speech: Speech, worker: Worker) -> dict[str, str]:
    """What was used, told beside the sound."""
    headers = {"x-engine": worker.engine.capabilities.engine, "x-voice": speech.voice.id}
    if speech.emotion is not None:
        headers["x-emotion"] = speech.emotion.name
    if speech.ignored:
        headers["x-ignored-parameters"] = ",".join(speech.ignored)
    return headers
