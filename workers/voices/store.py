"""The library of voices and emotion profiles, kept in one database for the whole fleet.

Every change is one transaction that also records an event, so that whoever knows a revision can learn what came after.
Methods block for as long as a lock is waited for; all raise `StoreUnavailable` or `StorageFull` when the database
cannot serve.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from fleet.errors import StorageFull, VoiceInUse
from fleet.library_contract import EmotionProfile, SpeakingDefaults, VoiceChanges
from workers.voices import writing
from workers.voices.database import Database
from workers.voices.records import EmotionRecord, EventRecord, SampleRecord, VoiceDraft, VoiceRecord
from workers.voices.rows import read_emotions, read_events, read_voices
from workers.voices.schema import emotion_voices, emotions, library, preparations, samples, voice_names, voices
from workers.voices.seeds import SEEDS
from workers.voices.writing import record, touch


@dataclass(frozen=True, slots=True)
class Changes:
    """What a reader needs to be up to date at `revision`. With `whole`, the records are all there are; else they are
    those that changed, and an id of `voice_ids` or `emotion_ids` that has no record is gone.
    """

    revision: int
    default_voice: str | None
    whole: bool
    events: Sequence[EventRecord]
    voices: Sequence[VoiceRecord]
    emotions: Sequence[EmotionRecord]
    voice_ids: frozenset[str] = frozenset()
    emotion_ids: frozenset[str] = frozenset()


class VoiceStore:
    """Voices and emotion profiles.

    `reserved` are the ids of the engine's own voices, which have no rows. `limit_bytes` bounds recordings and copies.
    """

    def __init__(
        self, database: Database, *, reserved: frozenset[str] = frozenset(), limit_bytes: int = 2**63 - 1
    ) -> None:
        self._database = database
        self._reserved = reserved
        self._limit_bytes = limit_bytes
        self.store_id = self._begin()

    def _begin(self) -> str:
        """The library's own id. The first worker of all brings the first profiles."""
        with self._database.writing() as connection:
            store_id, revision = connection.execute(select(library.c.store_id, library.c.revision)).one()
            if revision == 0:
                for profile in SEEDS:
                    writing.insert_emotion(connection, profile)
            return str(store_id)

    def revision(self) -> int:
        with self._database.reading() as connection:
            return int(connection.execute(select(library.c.revision)).scalar_one())

    def changes(self, kind: str, since: int | None) -> Changes:
        """All that changed after a revision, or everything for None and for one too old to tell."""
        with self._database.reading() as connection:
            revision, default_voice = connection.execute(select(library.c.revision, library.c.default_voice)).one()
            if since is not None:
                happened = read_events(connection, since)
                if len(happened) == revision - since:
                    touched = frozenset(event.subject for event in happened if event.kind.startswith("voice."))
                    moods = frozenset(event.subject for event in happened if event.kind.startswith("emotion."))
                    return Changes(
                        revision=revision,
                        default_voice=default_voice,
                        whole=False,
                        events=happened,
                        voices=read_voices(connection, kind, touched),
                        emotions=read_emotions(connection, moods),
                        voice_ids=touched,
                        emotion_ids=moods,
                    )
            return Changes(
                revision=revision,
                default_voice=default_voice,
                whole=True,
                events=read_events(connection, revision - writing.EVENTS_KEPT),
                voices=read_voices(connection, kind),
                emotions=read_emotions(connection),
            )

    def events(self, since: int, limit: int) -> list[EventRecord]:
        """What is kept of what happened after a revision, oldest first."""
        with self._database.reading() as connection:
            return read_events(connection, since, limit)

    def create_voice(
        self, draft: VoiceDraft, recordings: Sequence[SampleRecord], *, kind: str, emotion: str | None = None
    ) -> VoiceRecord:
        """A voice that is to be prepared; with `emotion`, the last of that profile's.

        Raises `NameTaken`, `EmotionNotFound`, and `StorageFull` when the library may not grow by so much.
        """
        now = time.time()
        with self._database.writing() as connection:
            self._require_room(connection, recordings)
            profile = None if emotion is None else writing.emotion_of(connection, emotion, None)
            voice_id = writing.free_voice_id(connection, draft.name, self._reserved)
            connection.execute(
                insert(voices).values(
                    id=voice_id,
                    name=draft.name,
                    description=draft.description,
                    language=draft.language,
                    defaults=writing.parameters_set(draft.defaults),
                    version=1,
                    created_at=now,
                    updated_at=now,
                )
            )
            writing.name_voice(connection, voice_id, draft.name, draft.aliases)
            writing.insert_samples(connection, voice_id, recordings)
            connection.execute(
                insert(preparations).values(voice_id=voice_id, kind=kind, status="pending", size=0, attempts=0)
            )
            if draft.default:
                connection.execute(update(library).values(default_voice=voice_id))
            record(connection, "voice.created", voice_id, draft.name)
            if profile is not None:
                position = len(profile.voices)
                row = {"emotion_id": profile.id, "position": position, "voice_id": voice_id}
                connection.execute(insert(emotion_voices), row)
                touch(connection, emotions, profile.id)
                record(connection, "emotion.updated", profile.id, profile.name)
            return writing.voice_of(connection, voice_id, kind, None)

    def change_voice(self, voice_id: str, changes: VoiceChanges, *, kind: str, version: int | None) -> VoiceRecord:
        """Raises `VoiceNotFound`, `NameTaken`, or `PreconditionFailed` when it is no longer of that version."""
        with self._database.writing() as connection:
            known = writing.voice_of(connection, voice_id, kind, version)
            given = changes.model_fields_set - {"aliases", "default"}
            values: dict[str, Any] = {name: getattr(changes, name) for name in given}
            for name in ("name", "description"):  # null leaves what cannot be absent as it is
                if values.get(name, "") is None:
                    del values[name]
            if "defaults" in values:
                values["defaults"] = writing.parameters_set(changes.defaults or SpeakingDefaults())
            if values:
                connection.execute(update(voices).where(voices.c.id == voice_id).values(**values))
            if "name" in values or "aliases" in changes.model_fields_set:
                aliases = known.aliases
                if "aliases" in changes.model_fields_set:
                    aliases = tuple(changes.aliases or ())
                connection.execute(delete(voice_names).where(voice_names.c.voice_id == voice_id))
                writing.name_voice(connection, voice_id, values.get("name", known.name), aliases)
            if changes.default is not None:
                writing.set_default(connection, voice_id, default=changes.default)
            touch(connection, voices, voice_id)
            record(connection, "voice.updated", voice_id, values.get("name", known.name))
            return writing.voice_of(connection, voice_id, kind, None)

    def set_default(self, voice_id: str, name: str, *, default: bool) -> None:
        """For one of the engine's own voices, which has no row."""
        with self._database.writing() as connection:
            writing.set_default(connection, voice_id, default=default)
            record(connection, "voice.updated", voice_id, name)

    def delete_voice(self, voice_id: str, *, version: int | None, force: bool = False) -> None:
        """Raises `VoiceNotFound`, `PreconditionFailed`, or `VoiceInUse` when profiles name it; `force` takes it out of
        them.
        """
        with self._database.writing() as connection:
            known = writing.voice_of(connection, voice_id, "", version)
            users = connection.execute(
                select(emotions.c.id, emotions.c.name)
                .join(emotion_voices, emotion_voices.c.emotion_id == emotions.c.id)
                .where(emotion_voices.c.voice_id == voice_id)
                .distinct()
            ).all()
            if users and not force:
                names = ", ".join(repr(user.name) for user in users[:5])
                message = f"{known.name!r} speaks for {len(users)} emotion profiles: {names}; force=true takes it out"
                raise VoiceInUse(message, param="id")
            connection.execute(delete(emotion_voices).where(emotion_voices.c.voice_id == voice_id))
            connection.execute(update(library).where(library.c.default_voice == voice_id).values(default_voice=None))
            connection.execute(delete(voices).where(voices.c.id == voice_id))
            record(connection, "voice.deleted", voice_id, known.name)
            for user in users:
                touch(connection, emotions, user.id)
                record(connection, "emotion.updated", user.id, user.name)

    def create_emotion(self, profile: EmotionProfile, voice_ids: Sequence[str]) -> EmotionRecord:
        """Raises `NameTaken`, and `VoiceNotFound` for a voice that was removed in the meantime."""
        with self._database.writing() as connection:
            writing.require_voices(connection, voice_ids, self._reserved)
            return writing.insert_emotion(connection, profile, voice_ids)

    def replace_emotion(
        self, emotion_id: str, profile: EmotionProfile, voice_ids: Sequence[str], *, version: int | None
    ) -> EmotionRecord:
        """Raises `EmotionNotFound`, `NameTaken`, `VoiceNotFound` or `PreconditionFailed`."""
        with self._database.writing() as connection:
            writing.emotion_of(connection, emotion_id, version)
            writing.require_voices(connection, voice_ids, self._reserved)
            writing.require_free_emotion_name(connection, profile.name, emotion_id)
            values = writing.emotion_values(profile)
            connection.execute(update(emotions).where(emotions.c.id == emotion_id).values(values))
            connection.execute(delete(emotion_voices).where(emotion_voices.c.emotion_id == emotion_id))
            writing.insert_emotion_voices(connection, emotion_id, voice_ids)
            touch(connection, emotions, emotion_id)
            record(connection, "emotion.updated", emotion_id, profile.name)
            return writing.emotion_of(connection, emotion_id, None)

    def delete_emotion(self, emotion_id: str, *, version: int | None) -> None:
        """Raises `EmotionNotFound` or `PreconditionFailed`."""
        with self._database.writing() as connection:
            known = writing.emotion_of(connection, emotion_id, version)
            connection.execute(delete(emotions).where(emotions.c.id == emotion_id))
            record(connection, "emotion.deleted", emotion_id, known.name)

    def close(self) -> None:
        self._database.close()

    def referenced(self) -> set[str]:
        """The digests of all files that something refers to."""
        with self._database.reading() as connection:
            found = [
                *connection.execute(select(samples.c.digest)).scalars(),
                *connection.execute(select(samples.c.copy_digest)).scalars(),
                *connection.execute(select(preparations.c.artifact)).scalars(),
            ]
        return {digest for digest in found if digest is not None}

    def _require_room(self, connection: Connection, recordings: Sequence[SampleRecord]) -> None:
        held = int(connection.execute(select(func.sum(samples.c.size + samples.c.copy_size))).scalar() or 0)
        more = sum(recording.size + recording.copy_size for recording in recordings)
        if held + more > self._limit_bytes:
            message = f"the library holds {held} bytes of recordings and may hold {self._limit_bytes}"
            raise StorageFull(f"{message}; {more} more do not fit", param="file")
