"""The wire contract of the library: voices, emotion profiles, their events, and files of speech."""

from __future__ import annotations

import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from fleet.contract import AudioFormat
from fleet.fields import Frozen, NullIsDefault, Text, Unicode
from fleet.speech_contract import SpeakingParameters

LONGEST_NAME = 128
MOST_ALIASES, MOST_VOICES_OF_AN_EMOTION, MOST_RECORDINGS = 32, 256, 20
LARGEST_PAGE = 1000

ID_PATTERN = r"[a-z0-9_-]{1,64}"
"""What every id of a voice or an emotion profile matches as a whole."""

Status = Literal["pending", "ready", "failed"]
"""Whether a voice can speak: being prepared, prepared, or unfit for a `reason`."""


def name_key(name: str) -> str:
    """What makes two names the same: Unicode's compatibility caseless form (TR 15, TR 44)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


_UNSEEN = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
_REORDERING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that make text look like another; joiners stay, which several scripts need."""


def _tidy_name(name: str) -> str:
    """NFC, without space at the ends. Raises ValueError for what cannot be shown or told apart."""
    tidy = unicodedata.normalize("NFC", name).strip()
    if all(unicodedata.category(character)[0] in "CZ" for character in tidy):
        raise ValueError("must hold more than white space")
    if len(tidy) > LONGEST_NAME:
        raise ValueError(f"may hold at most {LONGEST_NAME} characters")
    if any(unicodedata.category(character) in _UNSEEN or character in _REORDERING for character in tidy):
        raise ValueError("must not hold control characters or line breaks")
    return tidy


def _tidy_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not hold a NUL")
    return text.strip()


def _without_twins(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))


TidyName = Annotated[Unicode, Field(min_length=1, max_length=4 * LONGEST_NAME), AfterValidator(_tidy_name)]
Description = Annotated[Unicode, Field(max_length=1000), AfterValidator(_tidy_text)]
LanguageTag = Annotated[Unicode, Field(pattern=r"^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$", max_length=35)]
Aliases = Annotated[list[TidyName], Field(max_length=MOST_ALIASES), AfterValidator(_without_twins)]
VoiceNames = Annotated[list[TidyName], Field(max_length=MOST_VOICES_OF_AN_EMOTION), AfterValidator(_without_twins)]


class SpeakingDefaults(SpeakingParameters):
    """What a voice or an emotion profile sets."""


class RecordingReport(BaseModel):
    """What an upload was found to hold.

    `loudness_lufs` is the integrated loudness of ITU-R BS.1770; `peak_db` and `noise_db` are relative to full scale,
    the noise that of the quietest tenth. `clipped` and `silent` are shares of the time. `notes` are for a person.
    """

    model_config = ConfigDict(frozen=True)

    duration_s: float
    sample_rate: int
    channels: int
    loudness_lufs: float
    peak_db: float
    clipped: float
    silent: float
    noise_db: float
    notes: tuple[str, ...] = ()


class VoiceSample(BaseModel):
    """One recording of a voice. `size` is in bytes, of the file as it was given."""

    filename: str
    media_type: str
    size: int
    sha256: str
    report: RecordingReport


class Voice(BaseModel):
    """A voice. `builtin` ones belong to the engine, and cannot be changed or removed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "anna",
                    "name": "Anna",
                    "description": "Warm, unhurried",
                    "language": "en",
                    "aliases": ["narrator"],
                    "default": False,
                    "builtin": False,
                    "status": "ready",
                    "reason": None,
                    "defaults": {"exaggeration": 0.6},
                    "samples": [],
                    "created_at": "2026-11-24T10:00:00Z",
                    "updated_at": "2026-11-24T10:00:00Z",
                }
            ]
        }
    )

    id: str
    name: str
    description: str = ""
    language: str | None = None
    aliases: list[str] = []
    default: bool = False
    builtin: bool = False
    status: Status = "ready"
    reason: str | None = None
    defaults: SpeakingDefaults = SpeakingDefaults()
    samples: list[VoiceSample] = []
    created_at: datetime | None = None
    updated_at: datetime | None = None


class VoicePage(BaseModel):
    """`total` counts what the search found; `next` is the cursor of the page after this one, null on the last."""

    voices: list[Voice]
    total: int
    next: str | None = None


class VoiceChanges(Frozen):
    """`PATCH /voices/{id}`: what is left out stays as it is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"description": "Warm, unhurried", "aliases": ["narrator"], "default": True}]}
    )

    name: TidyName | None = None
    description: Description | None = None
    language: LanguageTag | None = None
    aliases: Aliases | None = None
    defaults: SpeakingDefaults | None = None
    default: StrictBool | None = None


class EmotionProfile(SpeakingDefaults):
    """`POST /emotions` and `PUT /emotions/{id}`: a named way of speaking. `voices` are names, aliases or ids."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Anna, excited",
                    "character": "Anna",
                    "description": "Good news",
                    "exaggeration": 0.9,
                    "cfg_weight": 0.3,
                    "voices": ["anna"],
                }
            ]
        }
    )

    name: TidyName
    character: Annotated[Unicode, Field(max_length=LONGEST_NAME), AfterValidator(_tidy_text)] = ""
    description: Description = ""
    voices: VoiceNames = Field(default_factory=list)


class Emotion(BaseModel):
    """An emotion profile as it is kept. `voices` are ids; the first of them speaks where a request names no voice."""

    id: str
    name: str
    character: str
    description: str
    exaggeration: float | None
    cfg_weight: float | None
    temperature: float | None
    min_p: float | None
    top_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    voices: list[str]
    created_at: datetime
    updated_at: datetime


class EmotionPage(BaseModel):
    emotions: list[Emotion]
    total: int
    next: str | None = None


class EmotionTest(Frozen):
    """`POST /emotions/{id}/test`: what to say, and with which voice; both may be left out."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"format": "wav"}]})

    text: Text = "This is how I speak when I am in this mood."
    voice: Annotated[Unicode, Field(min_length=1, max_length=LONGEST_NAME)] | None = None
    format: Annotated[AudioFormat, NullIsDefault] = AudioFormat.wav


EventKind = Literal[
    "voice.created",
    "voice.updated",
    "voice.ready",
    "voice.failed",
    "voice.pending",
    "voice.deleted",
    "emotion.created",
    "emotion.updated",
    "emotion.deleted",
]


class LibraryEvent(BaseModel):
    """`GET /voices/events`: one change. `revision` grows by one with each, over the whole fleet."""

    revision: int
    kind: EventKind
    id: str
    name: str
    at: datetime


class Generated(BaseModel):
    """`POST /generate`: where the file of speech is and what it was spoken with.

    `duration_s` is the file's; `rtf` is computing time over the engine's own sound, before its tempo is changed.
    """

    audio_url: str
    filename: str
    format: AudioFormat
    size: int
    duration_s: float
    sample_rate: int
    rtf: float
    engine: str
    voice: str
    emotion: str | None
    language: str | None
    seed: int
    speed: float
    parameters: dict[str, Any]
    ignored_parameters: list[str]
    expires_at: datetime
