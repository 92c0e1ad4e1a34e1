"""Sound that was spoken before, as a file of another format."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from fleet.contract import AudioFormat
from fleet.errors import UnsupportedMediaType
from workers.api.audio import AudioResponse
from workers.api.speech import SOUND
from workers.api.state import WorkerState

router = APIRouter(tags=["speech"])

_TAKEN = AudioFormat.pcm.media_type

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
    """Encode sound that was answered as `pcm`, as a whole file whose header says how long it is."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != _TAKEN:
        raise UnsupportedMediaType(f"the body must be {_TAKEN}, as pcm answers are", param="content-type")
    file = worker.encoding.file(await worker.encoding.taken(request.stream()), audio_format)
    return AudioResponse(file, media_type=audio_format.media_type, headers={"cache-control": "no-store"})
