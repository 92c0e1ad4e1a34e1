"""Speech: OpenAI's route and the native one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from fleet.contract import AudioFormat, ErrorBody
from fleet.speech_contract import SpeechRequest, StreamFormat, StreamRequest, SynthesisRequest
from workers.api.audio import AudioResponse
from workers.api.speech_events import EVENT_STREAM, SpeechEventsResponse
from workers.api.state import Worker, WorkerState
from workers.resolution import Speech, resolve
from workers.synthesis import Measured

router = APIRouter(tags=["speech"])

SOUND: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The sound, as it is made.",
        "content": {media.media_type: {"schema": {"type": "string", "format": "binary"}} for media in AudioFormat},
    },
    "4XX": {"model": ErrorBody, "description": "The request is at fault; `param` names the field."},
    "5XX": {"model": ErrorBody, "description": "The service is at fault."},
}

STREAM: dict[int | str, dict[str, Any]] = {
    **SOUND,
    200: {
        "description": "The sound, as it is made: bare, or as the events `speech.audio.delta` (`audio`, in base64) and"
        " `speech.audio.done` (`usage`), on `/synthesize/stream` also `speech.segments` (`segments`, the pieces of the"
        " text) and `speech.segment.done` (`index`, `audio_s`); what"
        " fails after the first of them is an `error` event with an ErrorBody.",
        "content": {**SOUND[200]["content"], EVENT_STREAM: {"schema": {"type": "string"}}},
    },
}


@router.post("/v1/audio/speech", status_code=200, response_class=AudioResponse, responses=STREAM)
async def create_speech(body: SpeechRequest, request: Request, worker: WorkerState) -> Response:
    """Speak a text, as OpenAI's speech API does."""
    return _streamed(await resolved(body, request, worker), worker, body.stream_format)


@router.post("/synthesize", status_code=200, response_class=AudioResponse, responses=SOUND)
async def synthesize(body: SynthesisRequest, request: Request, worker: WorkerState) -> AudioResponse:
    """Speak a text."""
    return speak(await resolved(body, request, worker), worker)


@router.post("/synthesize/stream", status_code=200, response_class=AudioResponse, responses=STREAM)
async def synthesize_stream(body: StreamRequest, request: Request, worker: WorkerState) -> Response:
    """Speak a text as server-sent events, which tell the segments of the text too, or as bare sound."""
    return _streamed(await resolved(body, request, worker), worker, body.stream_format, with_segments=True)


async def resolved(body: SpeechRequest | SynthesisRequest, request: Request, worker: Worker) -> Speech:
    """The request against the library as it is now; what it is goes into the log."""
    speech = resolve(
        body,
        capabilities=worker.engine.capabilities,
        library=await worker.library.current(),
        max_text_chars=worker.settings.max_text_chars,
        loudness=worker.settings.loudness,
    )
    request.state.log = {"chars": len(speech.text), "voice": speech.voice.id, "format": str(speech.audio_format)}
    return speech


def speak(speech: Speech, worker: Worker) -> AudioResponse:
    """The sound, with what was used told beside it."""
    headers = _told(speech, worker)
    return AudioResponse(worker.synthesis.audio(speech), media_type=speech.audio_format.media_type, headers=headers)


def _streamed(speech: Speech, worker: Worker, stream_format: StreamFormat, *, with_segments: bool = False) -> Response:
    if stream_format == "audio":
        return speak(speech, worker)
    measured = Measured()
    pieces = worker.synthesis.audio(speech, measured)
    segments = worker.synthesis.segments(speech) if with_segments else ()
    return SpeechEventsResponse(
        pieces, measured, chars=len(speech.text), headers=_told(speech, worker), segments=segments
    )


def _told(speech: Speech, worker: Worker) -> dict[str, str]:
    headers = {"x-engine": worker.engine.capabilities.engine, "x-voice": speech.voice.id, "x-seed": str(speech.seed)}
    if speech.emotion is not None:
        headers["x-emotion"] = speech.emotion.id
    if speech.language is not None:
        headers["x-language"] = speech.language
    if speech.ignored:
        headers["x-ignored-parameters"] = ",".join(speech.ignored)
    return headers
