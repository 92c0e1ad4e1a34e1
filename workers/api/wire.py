"""Records of the library as they go over the wire."""

from __future__ import annotations

from fleet.library_contract import Emotion, Voice, VoiceSample
from workers.voices.records import EmotionRecord, VoiceRecord
from workers.voices.snapshot import Snapshot


def voice_of(record: VoiceRecord, library: Snapshot) -> Voice:
    return Voice.model_construct(
        id=record.id,
        name=record.name,
        description=record.description,
        language=record.language,
        aliases=list(record.aliases),
        default=record.id == library.default.id,
        builtin=record.builtin,
        status=record.status,
        reason=record.reason,
        defaults=record.defaults,
        samples=[
            VoiceSample.model_construct(
                filename=sample.filename,
                media_type=sample.media_type,
                size=sample.size,
                sha256=sample.digest,
                report=sample.report,
            )
            for sample in record.samples
        ],
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def emotion_of(record: EmotionRecord) -> Emotion:
    return Emotion(
        id=record.id,
        name=record.name,
        character=record.character,
        description=record.description,
        voices=list(record.voices),
        created_at=record.created_at,
        updated_at=record.updated_at,
        **record.defaults.model_dump(),
    )
