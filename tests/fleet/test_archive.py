"""A library as one file, and an older server's folder, read without a fleet."""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fleet import archive as archive_module
from fleet.archive import read_archive
from fleet.errors import InvalidValue
from fleet.legacy import read_legacy
from tests.workers.voices.test_recordings import Canary

SOUND = b"RIFF what stands for a recording"


def library(**changes: Any) -> dict[str, Any]:
    recording = {"member": "recordings/a/0.wav", "filename": "a.wav", "sha256": hashlib.sha256(SOUND).hexdigest()}
    voice: dict[str, Any] = {
        "id": "a",
        "name": "Анна",
        "description": "",
        "language": None,
        "aliases": [],
        "defaults": {},
        "default": False,
        "recordings": [recording | changes.pop("recording", {})],
    }
    return {"voices": [voice | changes.pop("voice", {})], "emotions": [{"name": "sad", "voices": ["a"]}], **changes}


def written(path: Path, listed: object, contents: bytes = SOUND) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("library.json", json.dumps(listed))
        file.writestr("recordings/a/0.wav", contents)
    return path


def test_archive_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Voices with their recordings, and the emotions that name them."""
    with read_archive(written(tmp_path / "l.zip", library())) as plan:
        (voice,) = plan.voices
        assert (voice.key, voice.name, plan.emotions[0].voices) == ("a", "Анна", ["a"])
        with voice.recordings[0].open() as file:
            assert file.read() == SOUND


@pytest.mark.parametrize(
    ("listed", "contents", "said"),
    [
        (library(version=2), SOUND, "version"),
        (library(extra=1), SOUND, "extra"),
        ({}, SOUND, "voices"),
        ([], SOUND, "library.json"),
        (library(recording={"sha256": "0" * 64}), SOUND, "is damaged"),
        (library(recording={"member": "../../etc/passwd"}), SOUND, "is missing"),
        (library(emotions=[{"name": "x", "exaggeration": 9}]), SOUND, "exaggeration"),
        (library(), SOUND + b"!", "is damaged"),
    ],
)
def test_archive_that_is_not_whole_is_refused_before_anything_is_sent(
    tmp_path: Path, listed: object, contents: bytes, said: str
) -> None:
    """With the reason."""
    with (
        pytest.raises(InvalidValue, match=said),
        read_archive(written(tmp_path / "l.zip", listed, contents)),
    ):
        pass


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    """Whatever it is."""
    for name, contents in (("text", b"hello"), ("empty", b""), ("cut", b"PK\x03\x04" + bytes(100))):
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(InvalidValue), read_archive(tmp_path / name):
            pass
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("something", "else")
    with pytest.raises(InvalidValue, match=r"no library\.json"), read_archive(tmp_path / "other.zip"):
        pass


def test_bomb_is_stopped_while_it_unfolds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever size its header claims."""
    monkeypatch.setattr(archive_module, "_MOST_RECORDING", 10_000)
    with (
        pytest.raises(InvalidValue, match="larger than 10000"),
        read_archive(written(tmp_path / "l.zip", library(), bytes(50_000_000))),
    ):
        pass


def saved_voices(folder: Path, entries: object) -> Path:
    (folder / "saved_voices" / "audio_files").mkdir(parents=True)
    (folder / "saved_voices" / "voices.json").write_text(json.dumps(entries))
    return folder / "saved_voices" / "audio_files"


@pytest.mark.parametrize("shape", ["object", "list", "named"])
def test_older_voices_are_found(tmp_path: Path, shape: str) -> None:
    """In every shape of the file, with paths that are relative, absolute on another machine, or bare names."""
    entries = [
        {"id": "v1", "name": "Anna", "audio_file": "audio_files/a.wav", "embedding_file": "embeddings/a.pt"},
        {"id": "v2", "name": "Боб", "audio_path": "/home/old/saved_voices/audio_files/b.wav"},
        {"id": "v3", "name": "Carl", "filename": "c.wav"},
    ]
    named = {entry["id"]: entry for entry in entries}
    audio = saved_voices(tmp_path, {"object": {"voices": entries}, "list": entries, "named": named}[shape])
    for name in "abc":
        (audio / f"{name}.wav").write_bytes(name.encode())
    for directory in (tmp_path, tmp_path / "saved_voices"):
        plan = read_legacy(directory)
        assert [voice.name for voice in plan.voices] == ["Anna", "Боб", "Carl"]
        assert plan.skipped == ()
        with plan.voices[1].recordings[0].open() as file:
            assert file.read() == b"b"


def test_older_emotions_bring_their_recordings(tmp_path: Path) -> None:
    """A recording that several name is one voice; numbers out of range are told."""
    (tmp_path / "storage" / "configs").mkdir(parents=True)
    (tmp_path / "storage" / "voices").mkdir()
    for name in ("one.wav", "two.wav"):
        (tmp_path / "storage" / "voices" / name).write_bytes(name.encode())
    both = ["one.wav", {"path": "voices/two.wav"}]
    entries = {
        "sad": {
            "name": "Sad",
            "character": "Anna",
            "exaggeration": 0.3,
            "voices": both,
        },
        "glad": {"name": "Glad", "voices": ["one.wav"]},
        "mad": {"name": "Mad", "exaggeration": 7},
        "odd": 5,
    }
    (tmp_path / "storage" / "configs" / "emotions.json").write_text(json.dumps({"emotions": entries}))
    plan = read_legacy(tmp_path)
    assert [voice.name for voice in plan.voices] == ["Sad", "Sad 2"]
    keys = [voice.key for voice in plan.voices]
    assert [(emotion.name, emotion.voices) for emotion in plan.emotions] == [("Sad", keys), ("Glad", keys[:1])]
    assert (plan.emotions[0].character, plan.emotions[0].exaggeration) == ("Anna", 0.3)
    assert sorted(line.partition(":")[0] for line in plan.skipped) == ["emotion 'Mad'", "emotions 'odd'"]


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    """By no name and no link, and no pickle is opened."""
    secret = tmp_path / "secret.wav"
    secret.write_bytes(b"secret")
    mark = tmp_path / "mark"
    root = tmp_path / "old"
    audio = saved_voices(
        root,
        [
            {"name": "a", "audio_file": "../../secret.wav"},
            {"name": "b", "audio_file": str(secret)},
            {"name": "c", "audio_file": "link.wav"},
            {"name": "d", "audio_file": "voice.pt"},
            {"name": "e", "audio_file": "nothing.wav"},
            {"name": "f", "audio_file": "a\0b"},
            {"name": "g"},
        ],
    )
    (audio / "link.wav").symlink_to(secret)
    (audio / "voice.pt").write_bytes(pickle.dumps(Canary(mark)))
    plan = read_legacy(root)
    assert plan.voices == ()
    assert len(plan.skipped) == 7
    assert not mark.exists()


def test_folder_without_either_layout_is_refused(tmp_path: Path) -> None:
    """As is a file that is not JSON."""
    with pytest.raises(InvalidValue, match="holds neither"):
        read_legacy(tmp_path)
    saved_voices(tmp_path, [])
    (tmp_path / "saved_voices" / "voices.json").write_text("{")
    with pytest.raises(InvalidValue, match="not JSON"):
        read_legacy(tmp_path)
