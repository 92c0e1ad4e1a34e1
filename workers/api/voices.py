"""The library of voices: made from recordings, listed, changed, removed, and heard as they were recorded."""

from __future__ import annotations

from operator import attrgetter
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Path, Query, Response, UploadFile
from pydantic import ValidationError

from fleet.contract import ErrorBody
from fleet.errors import InvalidValue, VoiceBuiltIn, VoiceNotFound
from fleet.library_contract import (
    ID_PATTERN,
    SpeakingDefaults,
    Status,
    Voice,
    VoiceChanges,
    VoicePage,
    name_key,
)
from workers.api.conditions import WantedVersion, entity_tag
from workers.api.errors import readable
from workers.api.files import StoredFile
from workers.api.forms import STRICT_FORM
from workers.api.pages import Cursor, Limit, Search, page_of
from workers.api.state import Worker, WorkerState
from workers.api.wire import voice_of
from workers.voices.records import VoiceDraft, VoiceRecord

ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is at fault; `param` names the field."},
    "5XX": {"model": ErrorBody, "description": "The service is at fault."},
}

router = APIRouter(tags=["voices"], responses=ERRORS)

VoiceId = Annotated[str, Path(pattern=f"^{ID_PATTERN}$", description="A voice's id.", examples=["anna"])]
Recordings = Annotated[
    list[UploadFile], File(description="One or several recordings: WAV, MP3, FLAC, OGG, M4A or WebM.")
]
FormNumber = Annotated[float | None, Form()]


@router.get("/voices")
async def list_voices(
    worker: WorkerState,
    limit: Limit = 100,
    cursor: Cursor = None,
    search: Search = None,
    language: Annotated[
        str | None, Query(max_length=35, description="A language tag, or the beginning of one.")
    ] = None,
    status: Annotated[Status | None, Query(description="Only those that stand so.")] = None,
) -> VoicePage:
    """The voices by name, the engine's own among them."""
    library = await worker.library.current()
    wanted = name_key(search or "")
    tag = (language or "").casefold().replace("_", "-")
    found = [
        voice
        for voice in library.voices_by_name
        if wanted in voice.sought
        and (status is None or voice.status == status)
        and (not tag or (voice.language or "").casefold().replace("_", "-").startswith(tag))
    ]
    page, following = page_of(found, attrgetter("order"), limit=limit, cursor=cursor)
    return VoicePage.model_construct(
        voices=[voice_of(voice, library) for voice in page], total=len(found), next=following
    )


@router.post("/voices", status_code=201, dependencies=[STRICT_FORM])
async def create_voice(
    worker: WorkerState,
    response: Response,
    file: Recordings,
    name: Annotated[str | None, Form(description="Default: the first file's name without its ending.")] = None,
    description: Annotated[str, Form()] = "",
    language: Annotated[str | None, Form(description="A language tag such as de.")] = None,
    aliases: Annotated[list[str] | None, Form(description="Repeated, or separated by commas.")] = None,
    default: Annotated[bool, Form(description="Speak with it where a request names no voice.")] = False,
    exaggeration: FormNumber = None,
    cfg_weight: FormNumber = None,
    temperature: FormNumber = None,
    min_p: FormNumber = None,
    top_p: FormNumber = None,
    top_k: Annotated[int | None, Form()] = None,
    repetition_penalty: FormNumber = None,
) -> Voice:
    """A voice made from recordings. It is usable at once: a request waits while the voice is being prepared."""
    given = {
        "name": name,
        "description": description,
        "language": language or None,
        "aliases": [part for alias in aliases or () for part in alias.split(",") if part.strip()],
        "defaults": {
            "exaggeration": exaggeration,
            "cfg_weight": cfg_weight,
            "temperature": temperature,
            "min_p": min_p,
            "top_p": top_p,
            "top_k": top_k,
            "repetition_penalty": repetition_penalty,
        },
        "default": default,
    }
    return await add_voice(worker, response, file, given)


async def add_voice(
    worker: Worker, response: Response, files: list[UploadFile], given: dict[str, Any], emotion: str | None = None
) -> Voice:
    """Check the fields, examine the recordings and keep the voice, as the last one of an emotion where it is given."""
    if not (given["name"] or "").strip():
        given["name"] = PurePath(files[0].filename or "").stem if files else ""
    draft = draft_of(given)
    await worker.library.require_free_name(draft)
    recordings = await worker.uploads.keep(files)
    made = await worker.library.call(
        worker.library.store.create_voice, draft, recordings, kind=worker.library.kind, emotion=emotion
    )
    response.headers["location"] = f"/voices/{made.id}"
    return _told(made, worker, response)


def draft_of(given: dict[str, Any]) -> VoiceDraft:
    """Fields of a form by the rules of the contract. Raises `InvalidValue`, naming the field."""
    try:
        checked = VoiceChanges.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][-1] if first["loc"][0] == "defaults" else first["loc"][0])
        raise InvalidValue(f"{field}: {readable(first['msg'])}", param=field) from None
    return VoiceDraft(
        name=checked.name or "",
        description=checked.description or "",
        language=checked.language,
        aliases=tuple(checked.aliases or ()),
        defaults=checked.defaults or SpeakingDefaults(),
        default=bool(checked.default),
    )


@router.get("/voices/{voice_id}")
async def get_voice(voice_id: VoiceId, worker: WorkerState, response: Response) -> Voice:
    """One voice, with its version as the ETag."""
    library = await worker.library.current()
    return _told(library.require_voice(voice_id), worker, response)


@router.patch("/voices/{voice_id}")
async def change_voice(
    voice_id: VoiceId, changes: VoiceChanges, worker: WorkerState, response: Response, version: WantedVersion
) -> Voice:
    """Change what is named and leave the rest. Of the engine's own voices only `default` can be changed."""
    known = (await worker.library.current()).require_voice(voice_id)
    store = worker.library.store
    if known.builtin:
        if changes.model_fields_set - {"default"} or changes.default is None:
            raise VoiceBuiltIn(f"{known.name!r} is the engine's own voice: only default can be changed", param="id")
        await worker.library.call(store.set_default, known.id, known.name, default=changes.default)
    else:
        kind = worker.library.kind
        known = await worker.library.call(store.change_voice, voice_id, changes, kind=kind, version=version)
    return _told(known, worker, response)


@router.delete("/voices/{voice_id}", status_code=204)
async def delete_voice(
    voice_id: VoiceId,
    worker: WorkerState,
    version: WantedVersion,
    force: Annotated[bool, Query(description="Take it out of the emotion profiles that name it.")] = False,
) -> None:
    """Remove a voice; what is being spoken with it is finished."""
    known = (await worker.library.current()).require_voice(voice_id)
    if known.builtin:
        raise VoiceBuiltIn(f"{known.name!r} is the engine's own voice and cannot be removed", param="id")
    await worker.library.call(worker.library.store.delete_voice, voice_id, version=version, force=force)


@router.get(
    "/voices/{voice_id}/sample",
    response_class=StoredFile,
    responses={200: {"description": "The recording.", "content": {"audio/*": {}}}},
)
async def get_sample(
    voice_id: VoiceId,
    worker: WorkerState,
    index: Annotated[int, Query(ge=0, le=1000, description="Which of several recordings.")] = 0,
    normalised: Annotated[
        bool, Query(description="The copy as 24 kHz mono FLAC, not the file as it was given.")
    ] = False,
) -> StoredFile:
    """A recording that the voice was made from."""
    known = (await worker.library.current()).require_voice(voice_id)
    if index >= len(known.samples):
        message = f"{known.name!r} has {len(known.samples)} recordings" if known.samples else "it has no recordings"
        raise VoiceNotFound(f"there is no recording {index} of {known.name!r}: {message}", param="index")
    sample = known.samples[index]
    path = worker.library.artifacts.path(sample.copy_digest if normalised else sample.digest)
    if not path.exists():
        raise VoiceNotFound(f"the recording of {known.name!r} is gone from the disk", param="index")
    name = f"{PurePath(sample.filename).stem}.flac" if normalised else sample.filename
    return StoredFile(
        path,
        media_type="audio/flac" if normalised else sample.media_type,
        filename=name,
        content_disposition_type="inline",
        headers={"x-content-type-options": "nosniff", "etag": f'"{path.name}"'},
    )


def _told(known: VoiceRecord, worker: Worker, response: Response) -> Voice:
    response.headers["etag"] = entity_tag(known.version)
    return voice_of(known, worker.library.snapshot)
