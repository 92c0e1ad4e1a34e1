"""The whole library as it was at one revision: what a request is resolved against, never half of a change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Self

from fleet.errors import EmotionNotFound, VoiceNotFound
from fleet.library_contract import name_key
from workers.engine.base import EngineVoice
from workers.voices.records import EmotionRecord, VoiceRecord
from workers.voices.store import Changes

_MOST_NAMED = 20
"""Names in a message that lists what there is."""


@dataclass(frozen=True)
class Snapshot:
    """Voices by id, those of the engine beside those of the store, which go first where they share a name."""

    builtin: Mapping[str, VoiceRecord]
    kept: Mapping[str, VoiceRecord]
    emotions: Mapping[str, EmotionRecord]
    revision: int = -1
    default_id: str | None = None

    @classmethod
    def empty(cls, voices: Sequence[EngineVoice]) -> Self:
        """Nothing but the engine's own voices, of which there is at least one."""
        return cls({voice.id: VoiceRecord.of_engine(voice) for voice in voices}, {}, {})

    def after(self, changes: Changes) -> Snapshot:
        """The library once these changes are known."""
        kept: dict[str, VoiceRecord] = {}
        emotions: dict[str, EmotionRecord] = {}
        if not changes.whole:
            kept.update((id_, voice) for id_, voice in self.kept.items() if id_ not in changes.voice_ids)
            emotions.update((id_, mood) for id_, mood in self.emotions.items() if id_ not in changes.emotion_ids)
        kept.update((voice.id, voice) for voice in changes.voices)
        emotions.update((emotion.id, emotion) for emotion in changes.emotions)
        return Snapshot(self.builtin, kept, emotions, changes.revision, changes.default_voice)

    @cached_property
    def voices(self) -> tuple[VoiceRecord, ...]:
        """The default voice, then the kept ones by name, then the engine's own in its order."""
        kept = sorted(self.kept.values(), key=attrgetter("order"))
        own = (voice for voice in self.builtin.values() if voice.id not in self.kept)
        default = self.default
        return (default, *(voice for voice in (*kept, *own) if voice.id != default.id))

    @cached_property
    def voices_by_name(self) -> tuple[VoiceRecord, ...]:
        """The same, in the order of their names."""
        return tuple(sorted(self.voices, key=attrgetter("order")))

    @cached_property
    def emotions_by_name(self) -> tuple[EmotionRecord, ...]:
        return tuple(sorted(self.emotions.values(), key=lambda emotion: name_key(emotion.name)))

    @property
    def default(self) -> VoiceRecord:
        """The one the operator has chosen, else the engine's first."""
        chosen = self.voice(self.default_id) if self.default_id is not None else None
        return chosen or next(iter(self.builtin.values()))

    @property
    def pending(self) -> list[VoiceRecord]:
        return [voice for voice in self.kept.values() if voice.status == "pending"]

    def voice(self, voice_id: str) -> VoiceRecord | None:
        """By its id alone."""
        return self.kept.get(voice_id) or self.builtin.get(voice_id)

    def require_voice(self, voice_id: str) -> VoiceRecord:
        """By its id alone. Raises `VoiceNotFound`."""
        voice = self.voice(voice_id)
        if voice is None:
            raise VoiceNotFound(f"there is no voice {voice_id!r}", param="id")
        return voice

    def find_voice(self, name: str, *, param: str = "voice") -> VoiceRecord:
        """By id, name or alias, without regard to case. Raises `VoiceNotFound`, listing what there is."""
        key = name_key(name)
        voice = self._kept_by_name.get(key) or self._builtin_by_name.get(key)
        if voice is None:
            known = _listed(voice.id for voice in self.voices)
            raise VoiceNotFound(f"there is no voice {name!r}; there are: {known}", param=param)
        return voice

    def has_voice_named(self, name: str) -> bool:
        """Whether a kept voice answers to the name; those of the engine give way."""
        return name_key(name) in self._kept_by_name

    def find_emotion(self, name: str, *, param: str = "emotion") -> EmotionRecord:
        """By id or name, without regard to case. Raises `EmotionNotFound`, listing what there is."""
        emotion = self.emotions.get(name) or self._emotions_by_key.get(name_key(name))
        if emotion is None:
            known = _listed(emotion.id for emotion in self.emotions_by_name)
            raise EmotionNotFound(f"there is no emotion {name!r}; there are: {known or 'none'}", param=param)
        return emotion

    @cached_property
    def _kept_by_name(self) -> Mapping[str, VoiceRecord]:
        return _by_name(self.kept.values())

    @cached_property
    def _builtin_by_name(self) -> Mapping[str, VoiceRecord]:
        return _by_name(self.builtin.values())

    @cached_property
    def _emotions_by_key(self) -> Mapping[str, EmotionRecord]:
        by_id = {emotion.id: emotion for emotion in self.emotions.values()}
        return by_id | {name_key(emotion.name): emotion for emotion in self.emotions.values()}


def _by_name(voices: Iterable[VoiceRecord]) -> dict[str, VoiceRecord]:
    found: dict[str, VoiceRecord] = {}
    for voice in voices:
        for key in voice.keys:
            found.setdefault(key, voice)
    return found


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = len(every) - _MOST_NAMED
    return ", ".join(every[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
