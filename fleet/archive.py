"""A library as one file: a zip of recordings as they were given, and `library.json`. No pickles, nothing computed."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

from pydantic import ValidationError

from fleet.errors import InvalidValue
from fleet.fields import Frozen
from fleet.files import whole_file
from fleet.library_client import LibraryClient
from fleet.library_contract import Emotion, EmotionProfile, SpeakingDefaults, Voice
from fleet.library_plan import Plan, PlannedRecording, PlannedVoice

_LIBRARY = "library.json"
_MOST_MEMBERS = 20_000
_MOST_JSON = 64 * 2**20
_MOST_RECORDING = 50 * 2**20
_PIECE = 2**18


class ArchivedRecording(Frozen):
    """`member` is its name in the zip."""

    member: str
    filename: str
    sha256: str


class ArchivedVoice(Frozen):
    id: str
    name: str
    description: str
    language: str | None
    aliases: list[str]
    defaults: SpeakingDefaults
    default: bool
    recordings: list[ArchivedRecording]


class ArchivedLibrary(Frozen):
    """`library.json`. Emotions name voices by the ids given here, or by those of an engine's own voices."""

    format: Literal["chatterbox-fleet-library"] = "chatterbox-fleet-library"
    version: Literal[1] = 1
    voices: list[ArchivedVoice]
    emotions: list[EmotionProfile]


def export_library(client: LibraryClient, path: Path) -> tuple[int, int]:
    """Write a fleet's library; the numbers of voices and emotions. Nothing half-written stays.

    Raises `InvalidValue` when a recording arrives damaged, OSError, and what the client raises.
    """
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        voices = [_exported(client, archive, voice) for voice in client.voices() if not voice.builtin]
        emotions = [_profile(emotion) for emotion in client.emotions()]
        listed = ArchivedLibrary(voices=voices, emotions=emotions)
        archive.writestr(_LIBRARY, listed.model_dump_json(indent=1))
    return len(voices), len(emotions)


def _profile(emotion: Emotion) -> EmotionProfile:
    return EmotionProfile.model_validate(emotion.model_dump(include=set(EmotionProfile.model_fields)))


def _exported(client: LibraryClient, archive: zipfile.ZipFile, voice: Voice) -> ArchivedVoice:
    recordings = []
    for index, sample in enumerate(voice.samples):
        member = f"recordings/{voice.id}/{index}{PurePosixPath(sample.filename).suffix[:10]}"
        digest = hashlib.sha256()
        with client.recording(voice.id, index) as pieces, archive.open(member, "w") as target:
            for piece in pieces:
                digest.update(piece)
                target.write(piece)
        if digest.hexdigest() != sample.sha256:
            raise InvalidValue(f"recording {index} of {voice.name!r} arrived damaged")
        recordings.append(ArchivedRecording(member=member, filename=sample.filename, sha256=sample.sha256))
    return ArchivedVoice(
        id=voice.id,
        name=voice.name,
        description=voice.description,
        language=voice.language,
        aliases=voice.aliases,
        defaults=voice.defaults,
        default=voice.default,
        recordings=recordings,
    )


@contextmanager
def read_archive(path: Path) -> Iterator[Plan]:
    """The plan that an archive holds, all of it checked; its recordings can be read inside the context.

    Raises `InvalidValue` for what is no such archive, is damaged, or holds more than an archive may. No member is
    written anywhere.
    """
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise InvalidValue(f"{path} is not an archive of a library: {error}") from None
    with archive:
        try:
            library = _listed(archive, path)
            _check_recordings(archive, library.voices)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
            raise InvalidValue(f"{path} is damaged: {error}") from None
        voices = tuple(_planned(archive, voice) for voice in library.voices)
        yield Plan(voices, tuple(library.emotions))


def _listed(archive: zipfile.ZipFile, path: Path) -> ArchivedLibrary:
    if len(archive.namelist()) > _MOST_MEMBERS:
        raise InvalidValue(f"{path} holds {len(archive.namelist())} files; at most {_MOST_MEMBERS} are read")
    try:
        text = b"".join(_bounded(archive, _LIBRARY, _MOST_JSON))
        return ArchivedLibrary.model_validate_json(text)
    except KeyError:
        raise InvalidValue(f"{path} holds no {_LIBRARY}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidValue(f"{_LIBRARY} of {path}: {where}: {first['msg']}") from None


def _check_recordings(archive: zipfile.ZipFile, voices: Sequence[ArchivedVoice]) -> None:
    for voice in voices:
        for recording in voice.recordings:
            digest = hashlib.sha256()
            try:
                for piece in _bounded(archive, recording.member, _MOST_RECORDING):
                    digest.update(piece)
            except KeyError:
                raise InvalidValue(f"{recording.member!r} of voice {voice.name!r} is missing") from None
            if digest.hexdigest() != recording.sha256:
                raise InvalidValue(f"{recording.member!r} of voice {voice.name!r} is damaged")


def _bounded(archive: zipfile.ZipFile, member: str, limit: int) -> Iterator[bytes]:
    """A member's contents, whatever size its header claims. Raises KeyError, and `InvalidValue` above the limit."""
    size = 0
    with archive.open(member) as file:
        while piece := file.read(_PIECE):
            size += len(piece)
            if size > limit:
                raise InvalidValue(f"{member!r} is larger than {limit} bytes")
            yield piece


def _planned(archive: zipfile.ZipFile, voice: ArchivedVoice) -> PlannedVoice:
    def opener(member: str) -> BinaryIO:
        return cast(BinaryIO, archive.open(member))

    return PlannedVoice(
        key=voice.id,
        name=voice.name,
        recordings=tuple(
            PlannedRecording(one.filename, one.sha256, lambda member=one.member: opener(member))  # type: ignore[misc]  # bound now
            for one in voice.recordings
        ),
        description=voice.description,
        language=voice.language,
        aliases=tuple(voice.aliases),
        defaults=voice.defaults,
        default=voice.default,
    )
