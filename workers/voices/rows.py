"""Rows of the library's tables read into records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, select, true

from fleet.library_contract import RecordingReport, SpeakingDefaults
from workers.voices.records import EmotionRecord, EventRecord, SampleRecord, VoiceRecord
from workers.voices.schema import emotion_voices, emotions, events, preparations, samples, voice_names, voices

_AT_ONCE = 500
"""Ids in one statement; SQLite takes 32,766 parameters, older ones 999."""


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def read_voices(connection: Connection, kind: str, ids: Collection[str] | None = None) -> list[VoiceRecord]:
    """The voices of these ids, or all, as they stand for one kind of conditionals."""
    if ids is None:
        return _read_voices(connection, kind, None)
    found: list[VoiceRecord] = []
    wanted = list(ids)
    for first in range(0, len(wanted), _AT_ONCE):
        found += _read_voices(connection, kind, wanted[first : first + _AT_ONCE])
    return found


def _read_voices(connection: Connection, kind: str, ids: Sequence[str] | None) -> list[VoiceRecord]:
    def within(column: ColumnElement[str]) -> ColumnElement[bool]:
        return true() if ids is None else column.in_(ids)

    prepared = and_(preparations.c.voice_id == voices.c.id, preparations.c.kind == kind)
    rows = connection.execute(
        select(voices, preparations.c.status, preparations.c.reason, preparations.c.artifact)
        .select_from(voices.outerjoin(preparations, prepared))
        .where(within(voices.c.id))
    ).all()
    aliases = _grouped(
        connection.execute(
            select(voice_names.c.voice_id, voice_names.c.alias)
            .where(voice_names.c.alias.is_not(None), within(voice_names.c.voice_id))
            .order_by(voice_names.c.position)
        )
    )
    recordings: defaultdict[str, list[SampleRecord]] = defaultdict(list)
    for row in connection.execute(
        select(samples).where(within(samples.c.voice_id)).order_by(samples.c.voice_id, samples.c.position)
    ):
        recordings[row.voice_id].append(_sample(row))
    return [
        VoiceRecord(
            id=row.id,
            name=row.name,
            description=row.description,
            language=row.language,
            aliases=tuple(aliases[row.id]),
            defaults=SpeakingDefaults.model_construct(**row.defaults),
            samples=tuple(recordings[row.id]),
            status=row.status or "pending",
            reason=row.reason,
            conditionals=row.artifact,
            version=row.version,
            created_at=moment(row.created_at),
            updated_at=moment(row.updated_at),
        )
        for row in rows
    ]


def _sample(row: Row[Any]) -> SampleRecord:
    return SampleRecord(
        filename=row.filename,
        media_type=row.media_type,
        digest=row.digest,
        size=row.size,
        copy_digest=row.copy_digest,
        copy_size=row.copy_size,
        report=RecordingReport.model_construct(**{**row.report, "notes": tuple(row.report["notes"])}),
    )


def read_emotions(connection: Connection, ids: Collection[str] | None = None) -> list[EmotionRecord]:
    """The emotion profiles of these ids, or all."""

    def within(column: ColumnElement[str]) -> ColumnElement[bool]:
        return true() if ids is None else column.in_(list(ids))

    named = _grouped(
        connection.execute(
            select(emotion_voices.c.emotion_id, emotion_voices.c.voice_id)
            .where(within(emotion_voices.c.emotion_id))
            .order_by(emotion_voices.c.position)
        )
    )
    return [
        EmotionRecord(
            id=row.id,
            name=row.name,
            character=row.character,
            description=row.description,
            defaults=SpeakingDefaults.model_construct(**row.defaults),
            voices=tuple(named[row.id]),
            version=row.version,
            created_at=moment(row.created_at),
            updated_at=moment(row.updated_at),
        )
        for row in connection.execute(select(emotions).where(within(emotions.c.id)))
    ]


def read_events(connection: Connection, since: int, limit: int | None = None) -> list[EventRecord]:
    """What happened after a revision, oldest first."""
    rows = connection.execute(select(events).where(events.c.revision > since).order_by(events.c.revision).limit(limit))
    return [EventRecord(row.revision, row.kind, row.subject, row.name, moment(row.at)) for row in rows]


def _grouped(rows: Iterable[Row[str, str]]) -> defaultdict[str, list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for key, value in rows:
        groups[key].append(value)
    return groups
