"""Emotion profiles: named ways of speaking, with the voices that speak so."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Form, Path, Request, Response

from fleet.library_contract import ID_PATTERN, Emotion, EmotionPage, EmotionProfile, EmotionTest, Voice, name_key
from fleet.speech_contract import SynthesisRequest
from workers.api.audio import AudioResponse
from workers.api.conditions import WantedVersion, entity_tag
from workers.api.forms import STRICT_FORM
from workers.api.pages import Cursor, Limit, Search, page_of
from workers.api.speech import SOUND, resolved, speak
from workers.api.state import WorkerState
from workers.api.voices import ERRORS, Recordings, add_voice
from workers.api.wire import emotion_of
from workers.voices.records import EmotionRecord
from workers.voices.snapshot import Snapshot

router = APIRouter(tags=["emotions"], responses=ERRORS)

EmotionId = Annotated[str, Path(pattern=f"^{ID_PATTERN}$", description="An emotion profile's id.", examples=["calm"])]


@router.get("/emotions")
async def list_emotions(
    worker: WorkerState, limit: Limit = 100, cursor: Cursor = None, search: Search = None
) -> EmotionPage:
    """The profiles by name."""
    library = await worker.library.current()
    wanted = name_key(search or "")
    found = [mood for mood in sorted(library.emotions.values(), key=_order) if not wanted or _mentions(mood, wanted)]
    page, following = page_of(found, _order, limit=limit, cursor=cursor)
    return EmotionPage(emotions=[emotion_of(mood) for mood in page], total=len(found), next=following)


def _order(emotion: EmotionRecord) -> str:
    return f"{name_key(emotion.name)}\0{emotion.id}"


def _mentions(emotion: EmotionRecord, wanted: str) -> bool:
    return any(wanted in name_key(text) for text in (emotion.id, emotion.name, emotion.character, emotion.description))


@router.post("/emotions", status_code=201)
async def create_emotion(profile: EmotionProfile, worker: WorkerState, response: Response) -> Emotion:
    """A new profile."""
    library = await worker.library.current()
    made = await worker.library.call(worker.library.store.create_emotion, profile, _voice_ids(profile, library))
    response.headers["location"] = f"/emotions/{made.id}"
    return _told(made, response)


@router.get("/emotions/{emotion_id}")
async def get_emotion(emotion_id: EmotionId, worker: WorkerState, response: Response) -> Emotion:
    """One profile, with its version as the ETag."""
    return _told(_require(await worker.library.current(), emotion_id), response)


@router.put("/emotions/{emotion_id}")
async def replace_emotion(
    emotion_id: EmotionId, profile: EmotionProfile, worker: WorkerState, response: Response, version: WantedVersion
) -> Emotion:
    """Put this in the profile's place; what is left out takes its default. The id stays."""
    library = await worker.library.current()
    changed = await worker.library.call(
        worker.library.store.replace_emotion, emotion_id, profile, _voice_ids(profile, library), version=version
    )
    return _told(changed, response)


@router.delete("/emotions/{emotion_id}", status_code=204)
async def delete_emotion(emotion_id: EmotionId, worker: WorkerState, version: WantedVersion) -> None:
    """Remove a profile; its voices stay."""
    await worker.library.call(worker.library.store.delete_emotion, emotion_id, version=version)


@router.post("/emotions/{emotion_id}/voices", status_code=201, dependencies=[STRICT_FORM])
async def add_voice_to_emotion(
    emotion_id: EmotionId,
    worker: WorkerState,
    response: Response,
    file: Recordings,
    name: Annotated[str | None, Form(description="Default: the profile's name and a number.")] = None,
    description: Annotated[str, Form()] = "",
    language: Annotated[str | None, Form(description="A language tag such as de.")] = None,
) -> Voice:
    """A voice made from recordings, as the last one of the profile."""
    library = await worker.library.current()
    profile = _require(library, emotion_id)
    given = {
        "name": name if name and name.strip() else _free_name(profile, library),
        "description": description,
        "language": language or None,
    }
    return await add_voice(worker, response, file, given, emotion=profile.id)


@router.post("/emotions/{emotion_id}/test", status_code=200, response_class=AudioResponse, responses=SOUND)
async def try_emotion(
    emotion_id: EmotionId,
    request: Request,
    worker: WorkerState,
    trial: Annotated[EmotionTest | None, Body()] = None,
) -> AudioResponse:
    """A sample sentence, or a text of one's own, spoken with the profile."""
    _require(await worker.library.current(), emotion_id)
    asked = trial or EmotionTest()
    spoken = SynthesisRequest(text=asked.text, voice=asked.voice, format=asked.format, emotion=emotion_id)
    return speak(await resolved(spoken, request, worker), worker)


def _require(library: Snapshot, emotion_id: str) -> EmotionRecord:
    return library.emotions.get(emotion_id) or library.find_emotion(emotion_id, param="id")


def _voice_ids(profile: EmotionProfile, library: Snapshot) -> list[str]:
    """The ids of the voices that a profile names in any way, each once. Raises `VoiceNotFound`."""
    return list(dict.fromkeys(library.find_voice(name, param="voices").id for name in profile.voices))


def _free_name(profile: EmotionRecord, library: Snapshot) -> str:
    number = len(profile.voices) + 1
    while library.has_voice_named(name := f"{profile.name} {number}"):
        number += 1
    return name


def _told(known: EmotionRecord, response: Response) -> Emotion:
    response.headers["etag"] = entity_tag(known.version)
    return emotion_of(known)
