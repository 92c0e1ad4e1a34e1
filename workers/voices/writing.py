"""The steps that changes of the library are made of, each within the caller's transaction."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, or_, select, update

from fleet.errors import EmotionNotFound, NameTaken, PreconditionFailed, VoiceNotFound
from fleet.library_contract import EmotionProfile, EventKind, SpeakingDefaults, name_key
from workers.voices.records import EmotionRecord, SampleRecord, VoiceRecord, slug
from workers.voices.rows import read_emotions, read_voices
from workers.voices.schema import emotion_voices, emotions, events, library, samples, voice_names, voices

EVENTS_KEPT = 10_000
_PRUNED_EVERY = 100


def record(connection: Connection, kind: EventKind, subject: str, name: str) -> None:
    """Give the library its next revision, and that revision its event."""
    revision = connection.execute(
        update(library).values(revision=library.c.revision + 1).returning(library.c.revision)
    ).scalar_one()
    connection.execute(insert(events).values(revision=revision, kind=kind, subject=subject, name=name, at=time.time()))
    if revision % _PRUNED_EVERY == 0:
        connection.execute(delete(events).where(events.c.revision <= revision - EVENTS_KEPT))


def voice_of(connection: Connection, voice_id: str, kind: str, version: int | None = None) -> VoiceRecord:
    """Raises `VoiceNotFound`, or `PreconditionFailed` when it is of another version than given."""
    found = read_voices(connection, kind, [voice_id])
    if not found:
        raise VoiceNotFound(f"there is no voice {voice_id!r}", param="id")
    _require_version(found[0].name, found[0].version, version)
    return found[0]


def emotion_of(connection: Connection, emotion_id: str, version: int | None = None) -> EmotionRecord:
    """Raises `EmotionNotFound`, or `PreconditionFailed` when it is of another version than given."""
    found = read_emotions(connection, [emotion_id])
    if not found:
        raise EmotionNotFound(f"there is no emotion {emotion_id!r}", param="id")
    _require_version(found[0].name, found[0].version, version)
    return found[0]


def _require_version(name: str, found: int, wanted: int | None) -> None:
    if wanted is not None and wanted != found:
        raise PreconditionFailed(f"{name!r} has been changed by somebody else; read it again", param="If-Match")


def free_voice_id(connection: Connection, name: str, reserved: frozenset[str]) -> str:
    """An id made of the name that no voice has, or answers to."""

    def is_taken(candidate: str) -> bool:
        known = select(voice_names.c.key).where(voice_names.c.key == candidate)
        return candidate in reserved or connection.execute(known).first() is not None

    candidate = slug(name, "")
    while not candidate or is_taken(candidate):
        candidate = f"{slug(name, 'voice')}-{secrets.token_hex(3)}"
    return candidate


def name_voice(connection: Connection, voice_id: str, name: str, aliases: Sequence[str]) -> None:
    """Give a voice, which has no names now, its id, name and aliases as names. Raises `NameTaken`."""
    rows: dict[str, dict[str, Any]] = {}
    for key, alias in ((voice_id, None), (name_key(name), None), *((name_key(alias), alias) for alias in aliases)):
        row = {"key": key, "voice_id": voice_id, "alias": alias, "position": len(rows)}
        rows.setdefault(key, row)
    taken = connection.execute(select(voice_names.c.key).where(voice_names.c.key.in_(list(rows)))).scalar()
    if taken is not None:
        field = "aliases" if rows[taken]["alias"] is not None else "name"
        raise NameTaken(f"another voice answers to {rows[taken]['alias'] or name!r} already", param=field)
    connection.execute(insert(voice_names), list(rows.values()))


def insert_samples(connection: Connection, voice_id: str, recordings: Sequence[SampleRecord]) -> None:
    rows = [
        {
            "voice_id": voice_id,
            "position": position,
            "filename": recording.filename,
            "media_type": recording.media_type,
            "digest": recording.digest,
            "size": recording.size,
            "copy_digest": recording.copy_digest,
            "copy_size": recording.copy_size,
            "report": recording.report.model_dump(mode="json"),
        }
        for position, recording in enumerate(recordings)
    ]
    connection.execute(insert(samples), rows)


def touch(connection: Connection, table: Table, subject: str) -> None:
    """The next version, changed now."""
    changed = {"version": table.c.version + 1, "updated_at": time.time()}
    connection.execute(update(table).where(table.c.id == subject).values(changed))


def set_default(connection: Connection, voice_id: str, *, default: bool) -> None:
    if default:
        connection.execute(update(library).values(default_voice=voice_id))
    else:
        connection.execute(update(library).where(library.c.default_voice == voice_id).values(default_voice=None))


def parameters_set(defaults: SpeakingDefaults) -> dict[str, Any]:
    """Those that are not null, by the names of `SpeakingDefaults` alone."""
    given = ((name, getattr(defaults, name)) for name in SpeakingDefaults.model_fields)
    return {name: value for name, value in given if value is not None}


def require_voices(connection: Connection, voice_ids: Sequence[str], reserved: frozenset[str]) -> None:
    """Raises `VoiceNotFound` for one that is neither in the library nor the engine's own."""
    wanted = set(voice_ids) - reserved
    known = set(connection.execute(select(voices.c.id).where(voices.c.id.in_(list(wanted)))).scalars())
    if missing := sorted(wanted - known):
        raise VoiceNotFound(f"there is no voice {missing[0]!r}", param="voices")


def insert_emotion(connection: Connection, profile: EmotionProfile, voice_ids: Sequence[str] = ()) -> EmotionRecord:
    """Raises `NameTaken`."""
    require_free_emotion_name(connection, profile.name, "")
    emotion_id = slug(profile.name, "")
    known = select(emotions.c.id)
    while (
        not emotion_id
        or connection.execute(known.where(or_(emotions.c.id == emotion_id, emotions.c.key == emotion_id))).first()
    ):
        emotion_id = f"{slug(profile.name, 'emotion')}-{secrets.token_hex(3)}"
    now = time.time()
    row = {"id": emotion_id, "version": 1, "created_at": now, "updated_at": now, **emotion_values(profile)}
    connection.execute(insert(emotions).values(row))
    insert_emotion_voices(connection, emotion_id, voice_ids)
    record(connection, "emotion.created", emotion_id, profile.name)
    return emotion_of(connection, emotion_id)


def require_free_emotion_name(connection: Connection, name: str, own_id: str) -> None:
    """Ids and names of emotions are one name space. Raises `NameTaken`."""
    key = name_key(name)
    others = select(emotions.c.id).where(emotions.c.id != own_id, or_(emotions.c.key == key, emotions.c.id == key))
    if connection.execute(others).first() is not None:
        raise NameTaken(f"there is an emotion {name!r} already", param="name")


def emotion_values(profile: EmotionProfile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "key": name_key(profile.name),
        "character": profile.character,
        "description": profile.description,
        "defaults": parameters_set(profile),
    }


def insert_emotion_voices(connection: Connection, emotion_id: str, voice_ids: Sequence[str]) -> None:
    rows = [
        {"emotion_id": emotion_id, "position": position, "voice_id": voice_id}
        for position, voice_id in enumerate(voice_ids)
    ]
    if rows:
        connection.execute(insert(emotion_voices), rows)
