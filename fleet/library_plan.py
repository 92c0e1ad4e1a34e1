"""What is to be in a library, read from a file or a folder, and how a fleet is brought to it.

Applying a plan again does what the first time did not, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from fleet.errors import FleetError, NameTaken, Unreachable
from fleet.library_client import LibraryClient
from fleet.library_contract import Emotion, EmotionProfile, SpeakingDefaults, Voice, name_key


@dataclass(frozen=True, slots=True)
class PlannedRecording:
    filename: str
    sha256: str
    open: Callable[[], BinaryIO]


@dataclass(frozen=True, slots=True)
class PlannedVoice:
    """`key` is what the plan's own emotions call it."""

    key: str
    name: str
    recordings: tuple[PlannedRecording, ...]
    description: str = ""
    language: str | None = None
    aliases: tuple[str, ...] = ()
    defaults: SpeakingDefaults = field(default_factory=SpeakingDefaults)
    default: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """`emotions` name voices by their keys, or by names that the fleet has anyway. `skipped` says what was left out."""

    voices: tuple[PlannedVoice, ...]
    emotions: tuple[EmotionProfile, ...]
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line for a person; `done` is False for what was refused."""

    line: str
    done: bool = True


class Application:
    """One plan brought to one fleet. `replace` puts what the plan says in the place of what has the same name."""

    def __init__(self, client: LibraryClient, *, replace: bool) -> None:
        self._client = client
        self._replace = replace
        self._ids: dict[str, str] = {}

    def apply(self, plan: Plan) -> Iterator[Outcome]:
        """Voices first, then the emotions that name them. Raises `Unreachable` when the fleet goes away."""
        voices = {name_key(voice.name): voice for voice in self._client.voices() if not voice.builtin}
        emotions = {name_key(emotion.name): emotion for emotion in self._client.emotions()}
        displaced: dict[str, str] = {}
        for voice in plan.voices:
            known = voices.get(name_key(voice.name))
            yield self._told(f"voice {voice.name!r}", partial(self._voice, voice, known, displaced))
        for emotion in self._with(displaced, list(emotions.values())):
            self._client.replace_emotion(emotion.id, _profile(emotion, displaced))
            yield Outcome(f"emotion {emotion.name!r}: speaks with the replaced voice")
        for profile in plan.emotions:
            named = profile.model_copy(update={"voices": [self._ids.get(key, key) for key in profile.voices]})
            found = emotions.get(name_key(profile.name))
            yield self._told(f"emotion {profile.name!r}", partial(self._emotion, named, found))

    @staticmethod
    def _with(displaced: dict[str, str], emotions: list[Emotion]) -> list[Emotion]:
        return [emotion for emotion in emotions if not displaced.keys().isdisjoint(emotion.voices)]

    @staticmethod
    def _told(what: str, act: Callable[[], str]) -> Outcome:
        try:
            return Outcome(f"{what}: {act()}")
        except Unreachable:
            raise
        except FleetError as error:
            return Outcome(f"{what}: refused: {error.message}", done=False)

    def _voice(self, voice: PlannedVoice, known: Voice | None, displaced: dict[str, str]) -> str:
        if known is not None:
            self._ids[voice.key] = known.id
            if {sample.sha256 for sample in known.samples} == {recording.sha256 for recording in voice.recordings}:
                return "left as it is"
            if not self._replace:
                raise NameTaken("there is one with other recordings; --replace puts this one in its place")
            self._client.delete_voice(known.id, force=True)
        with ExitStack() as stack:
            files = [(recording.filename, stack.enter_context(recording.open())) for recording in voice.recordings]
            made = self._client.create_voice(
                files,
                name=voice.name,
                description=voice.description,
                language=voice.language,
                aliases=voice.aliases,
                defaults=voice.defaults,
                default=voice.default,
            )
        self._ids[voice.key] = made.id
        if known is None:
            return "added"
        displaced[known.id] = made.id
        return "replaced"

    def _emotion(self, profile: EmotionProfile, known: Emotion | None) -> str:
        if known is None:
            self._client.create_emotion(profile)
            return "added"
        if _profile(known, {}) == profile:
            return "left as it is"
        if not self._replace:
            raise NameTaken("there is another one of that name; --replace puts this one in its place")
        self._client.replace_emotion(known.id, profile)
        return "replaced"


def _profile(emotion: Emotion, displaced: dict[str, str]) -> EmotionProfile:
    fields = emotion.model_dump(include=set(EmotionProfile.model_fields))
    return EmotionProfile.model_validate(
        {**fields, "voices": [displaced.get(voice, voice) for voice in emotion.voices]}
    )
