"""What the library holds, as the rest of a worker sees it: immutable, read in one piece."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime

from fleet.library_contract import EventKind, RecordingReport, SpeakingDefaults, Status, name_key
from workers.engine.base import EngineVoice

_LONGEST_SLUG = 48


def slug(name: str, otherwise: str) -> str:
    """An id made of a name's ASCII letters and digits; `otherwise` for a name that has none."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:_LONGEST_SLUG].strip("-") or otherwise


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One recording: the file as given, and a copy as 24 kHz mono FLAC. Digests are SHA-256 in hex; sizes in bytes."""

    filename: str
    media_type: str
    digest: str
    size: int
    copy_digest: str
    copy_size: int
    report: RecordingReport


@dataclass(frozen=True, slots=True)
class VoiceRecord:
    """A voice. `engine_voice` is set for one of the engine's own, which has no recordings and no version.

    `status`, `reason` and `conditionals` (the digest of what the engine made of the recordings) are those for one kind
    of conditionals: the engine's that asked.
    """

    id: str
    name: str
    description: str = ""
    language: str | None = None
    aliases: tuple[str, ...] = ()
    defaults: SpeakingDefaults = field(default_factory=SpeakingDefaults)
    samples: tuple[SampleRecord, ...] = ()
    status: Status = "ready"
    reason: str | None = None
    conditionals: str | None = None
    version: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    engine_voice: EngineVoice | None = None
    keys: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """What it answers to: its id, its name and its aliases, as `name_key` makes them."""
    order: str = field(init=False, repr=False, compare=False)
    """Sorts by name, and by id where names are the same."""
    sought: str = field(init=False, repr=False, compare=False)
    """All that a search looks at."""

    def __post_init__(self) -> None:
        keys = (self.id, name_key(self.name), *(name_key(alias) for alias in self.aliases))
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "order", f"{keys[1]}\0{self.id}")
        object.__setattr__(self, "sought", "\n".join((*keys, name_key(self.description))))

    @classmethod
    def of_engine(cls, voice: EngineVoice) -> VoiceRecord:
        return cls(
            id=voice.id,
            name=voice.name,
            description=voice.description,
            language=voice.language,
            aliases=voice.aliases,
            engine_voice=voice,
        )

    @property
    def builtin(self) -> bool:
        return self.engine_voice is not None


@dataclass(frozen=True, slots=True)
class EmotionRecord:
    """A named way of speaking. `voices` are ids; the first speaks where a request names none."""

    id: str
    name: str
    character: str
    description: str
    defaults: SpeakingDefaults
    voices: tuple[str, ...]
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One change of the library, numbered without gaps."""

    revision: int
    kind: EventKind
    subject: str
    name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class VoiceDraft:
    """A voice to be made."""

    name: str
    description: str = ""
    language: str | None = None
    aliases: tuple[str, ...] = ()
    defaults: SpeakingDefaults = field(default_factory=SpeakingDefaults)
    default: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to prepare one voice, until its lease ends. `attempt` counts from 1."""

    voice: str
    copies: tuple[str, ...]
    attempt: int
