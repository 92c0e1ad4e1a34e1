"""Sound that was spoken before, as a file of another format."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from python_multipart.multipart import parse_options_header

from fleet.bodies import received
from fleet.contract import SAMPLE_RATE, AudioFormat
from fleet.errors import UnsupportedMediaType
from workers.api.audio import AudioResponse
from workers.api.speech import SOUND
from workers.api.state import WorkerState

router = APIRouter(tags=["speech"])

_TAKEN = AudioFormat.pcm.media_type
_TOLD = {b"rate": b"%d" % SAMPLE_RATE, b"channels": b"1"}

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Signed 16-bit little-endian samples, mono, 24 kHz: what `pcm` answers hold.",
        "content": {_TAKEN: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/encode", status_code=200, response_class=AudioResponse, responses=SOUND, openapi_extra=_BODY)
async def encode(
    request: Request,
    worker: WorkerState,
    audio_format: Annotated[AudioFormat, Query(alias="format", description="What to encode it as.")],
) -> AudioResponse:
    """Encode sound that was answered as `pcm`, as a whole file; WAV, FLAC and MP3 begin with how long it is."""
    _check(request.headers.get("content-type", ""), request.headers.get("content-encoding", "identity"))
    file = worker.encoding.file(await received(request.receive), audio_format)
    return AudioResponse(file, media_type=audio_format.media_type, headers={"cache-control": "no-store"})


def _check(content_type: str, content_encoding: str) -> None:
    """Raises `UnsupportedMediaType` for other sound than this service's, whose rate and channels may be told."""
    if content_encoding.strip().lower() != "identity":
        raise UnsupportedMediaType("the body must not be compressed", param="content-encoding")
    given, parameters = parse_options_header(content_type)
    if given != _TAKEN.encode():
        raise UnsupportedMediaType(f"the body must be {_TAKEN}, as pcm answers are", param="content-type")
    if any(parameters.get(name, value) != value for name, value in _TOLD.items()):
        raise UnsupportedMediaType(f"the samples must be mono, {SAMPLE_RATE} in a second", param="content-type")
