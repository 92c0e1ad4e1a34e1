"""Speech kept as a file: `/generate` makes it, `/outputs` serves it for a time."""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request

from fleet.asgi import while_client_stays
from fleet.contract import SAMPLE_RATE, AudioFormat
from fleet.library_contract import Generated
from fleet.speech_contract import SynthesisRequest
from workers.api.files import StoredFile
from workers.api.speech import resolved
from workers.api.state import Worker, WorkerState
from workers.api.voices import ERRORS
from workers.resolution import Speech
from workers.synthesis import Measured

router = APIRouter(tags=["speech"], responses=ERRORS)


@router.post("/generate")
async def generate(body: SynthesisRequest, request: Request, worker: WorkerState) -> Generated:
    """Speak a text into a file, and tell where it is and what it was spoken with."""
    speech = await resolved(body, request, worker)
    made: list[Generated] = []

    async def make() -> None:
        made.append(await _generated(speech, worker))

    await while_client_stays(request.receive, make())
    return made[0]


async def _generated(speech: Speech, worker: Worker) -> Generated:
    measured = Measured()
    kept = await worker.outputs.keep(worker.synthesis.audio(speech, measured), speech.audio_format)
    parameters = {name: value for name, value in asdict(speech.parameters).items() if name != "seed"}
    return Generated(
        audio_url=f"/outputs/{kept.name}",
        filename=kept.name,
        format=speech.audio_format,
        size=kept.size,
        duration_s=round(measured.sent_s, 3),
        sample_rate=SAMPLE_RATE,
        rtf=round(measured.busy_s / measured.audio_s, 4) if measured.audio_s else 0.0,
        engine=worker.engine.capabilities.engine,
        voice=speech.voice.id,
        emotion=None if speech.emotion is None else speech.emotion.id,
        language=speech.language,
        seed=speech.seed,
        speed=speech.speed,
        parameters=parameters,
        ignored_parameters=list(speech.ignored),
        expires_at=datetime.now(UTC) + timedelta(seconds=worker.outputs.max_age_s),
    )


@router.get(
    "/outputs/{filename}",
    response_class=StoredFile,
    responses={
        200: {"description": "The file.", "content": {media.media_type: {} for media in AudioFormat}},
        206: {"description": "The part that Range asks for."},
        304: {"description": "If-None-Match names it."},
    },
)
async def get_output(filename: str, worker: WorkerState) -> StoredFile:
    """A file of speech, whole or in part."""
    path = worker.outputs.find(filename)
    media_type = AudioFormat(path.suffix.removeprefix(".")).media_type
    left_s = max(0, int(path.stat().st_mtime + worker.outputs.max_age_s - time.time()))
    headers = {"x-content-type-options": "nosniff", "cache-control": f"private, max-age={left_s}, immutable"}
    return StoredFile(path, media_type=media_type, headers=headers)
