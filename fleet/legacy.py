"""The libraries of older Chatterbox servers, read from their JSON and their recordings; no `.pt` is ever opened.

Two layouts: `saved_voices/voices.json` beside `audio_files/`, and `storage/configs/emotions.json` beside `voices/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO

from pydantic import ValidationError

from fleet.errors import InvalidValue
from fleet.library_contract import EmotionProfile, SpeakingDefaults, VoiceChanges, name_key
from fleet.library_plan import Plan, PlannedRecording, PlannedVoice

_AUDIO_KEYS = ("audio_file", "audio_path", "file_path", "file", "path", "filename")
_EMOTION_VOICE_KEYS = ("voices", "voice_files", "voice", "audio_path")
_MOST_JSON = 16 * 2**20
_MOST_RECORDING = 50 * 2**20


class _Skipped(Exception):
    """An entry that cannot be taken over; the message says why."""


def read_legacy(directory: Path) -> Plan:
    """The plan that a folder of one or both layouts holds. Raises `InvalidValue` when it holds neither."""
    reader = _Reader(directory)
    for name in ("saved_voices/voices.json", "voices.json"):
        if (directory / name).is_file():
            reader.read_voices(directory / name)
            break
    for name in ("storage/configs/emotions.json", "configs/emotions.json"):
        if (directory / name).is_file():
            reader.read_emotions(directory / name)
            break
    if not reader.found:
        wanted = "saved_voices/voices.json nor storage/configs/emotions.json"
        raise InvalidValue(f"{directory} holds neither {wanted}", param="directory")
    return Plan(tuple(reader.voices.values()), tuple(reader.emotions), tuple(reader.skipped))


class _Reader:
    def __init__(self, directory: Path) -> None:
        self._root = directory.resolve()
        self.found = False
        self.voices: dict[str, PlannedVoice] = {}
        """By the digest of their recording: one file that several entries name is one voice."""
        self.emotions: list[EmotionProfile] = []
        self.skipped: list[str] = []
        self._names: set[str] = set()

    def read_voices(self, path: Path) -> None:
        self.found = True
        folders = (path.parent, path.parent / "audio_files")
        for label, entry in self._entries(path, "voices"):
            try:
                name = _text(entry, "name") or _text(entry, "id") or label
                recording = self._recording(_first(entry, _AUDIO_KEYS), folders)
                language = _text(entry, "language") or None
                self._plan_voice(name, recording, _text(entry, "description"), language)
            except _Skipped as reason:
                self.skipped.append(f"voice {label!r}: {reason}")

    def read_emotions(self, path: Path) -> None:
        self.found = True
        storage = path.parent.parent
        folders = (storage, storage / "voices", self._root, self._root / "voices", path.parent)
        for label, entry in self._entries(path, "emotions"):
            try:
                name = _text(entry, "name") or _text(entry, "id") or label
                keys = [
                    self._plan_voice(name, self._recording(named, folders), "", None)
                    for named in _list(_first(entry, _EMOTION_VOICE_KEYS))
                ]
                given = {
                    "name": name,
                    "character": _text(entry, "character"),
                    "description": _text(entry, "description"),
                    "voices": list(dict.fromkeys(keys)),
                }
                numbers = {field: entry.get(field) for field in SpeakingDefaults.model_fields}
                self.emotions.append(EmotionProfile.model_validate(given | numbers))
            except ValidationError as error:
                first = error.errors()[0]
                self.skipped.append(f"emotion {label!r}: {first['loc'][0]}: {first['msg']}")
            except _Skipped as reason:
                self.skipped.append(f"emotion {label!r}: {reason}")

    def _entries(self, path: Path, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Each entry with what it can be called, whether they are listed or named."""
        if path.stat().st_size > _MOST_JSON:
            raise InvalidValue(f"{path} is larger than {_MOST_JSON} bytes")
        try:
            found = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise InvalidValue(f"{path} is not JSON: {error}") from None
        if isinstance(found, dict) and isinstance(found.get(key), list | dict):
            found = found[key]
        if not isinstance(found, list | dict):
            raise InvalidValue(f"{path} holds no {key}")
        named = found.items() if isinstance(found, dict) else ((str(n), entry) for n, entry in enumerate(found, 1))
        for label, entry in named:
            if isinstance(entry, dict):
                yield str(entry.get("name") or entry.get("id") or label), entry
            else:
                self.skipped.append(f"{key} {label!r}: is not an object")

    def _recording(self, named: object, folders: tuple[Path, ...]) -> PlannedRecording:
        if isinstance(named, Mapping):
            named = _first(named, _AUDIO_KEYS)
        if not isinstance(named, str) or not named.strip():
            raise _Skipped("it names no recording")
        last = PureWindowsPath(PurePosixPath(named).name).name  # an old absolute path is good for its name alone
        candidates = [folder / part for part in (named.replace("\\", "/"), last) for folder in folders]
        path = next((found for found in map(self._within, candidates) if found is not None), None)
        if path is None:
            raise _Skipped(f"its recording {named!r} is not below {self._root}")
        if path.suffix.lower() in (".pt", ".pth", ".pkl"):
            raise _Skipped(f"{named!r} is no recording")
        if path.stat().st_size > _MOST_RECORDING:
            raise _Skipped(f"its recording {named!r} is larger than {_MOST_RECORDING} bytes")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return PlannedRecording(path.name, digest, partial(_opened, path))

    def _within(self, path: Path) -> Path | None:
        """A file below the folder that was asked for, wherever its links lead; None for any other."""
        try:
            real = path.resolve()
            return real if real.is_relative_to(self._root) and real.is_file() else None
        except (OSError, ValueError):  # a name with a NUL, a loop of links
            return None

    def _plan_voice(self, name: str, recording: PlannedRecording, description: str, language: str | None) -> str:
        """The key of the voice of a recording, planned now unless it is already."""
        if recording.sha256 not in self.voices:
            free = next(
                candidate
                for candidate in (name, *(f"{name} {number}" for number in range(2, 10_000)))
                if name_key(candidate) not in self._names
            )
            try:
                VoiceChanges(name=free, description=description, language=language)
            except ValidationError as error:
                first = error.errors()[0]
                raise _Skipped(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from None
            self._names.add(name_key(free))
            self.voices[recording.sha256] = PlannedVoice(
                recording.sha256, free, (recording,), description=description, language=language
            )
        return recording.sha256


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _first(entry: Mapping[str, Any], keys: tuple[str, ...]) -> object:
    return next((entry[key] for key in keys if entry.get(key)), None)


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return value.strip() if isinstance(value, str) else ""


def _list(value: object) -> list[object]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
