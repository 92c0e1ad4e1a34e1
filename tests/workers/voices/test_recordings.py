"""Uploads are examined before they are kept."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fleet.errors import FleetError, RecordingUnfit, UnsupportedMediaType
from tests.tools import require_tool
from tests.workers.voices.making import encoded, speechlike, voice_file, wav
from workers.voices import recordings
from workers.voices.recordings import Examined, Examiner, read_copy, tidy_filename


async def examined(contents: bytes, filename: str = "voice.wav") -> Examined:
    return await Examiner().examine(contents, filename)


@pytest.mark.parametrize(
    ("ending", "media_type"),
    [
        (".wav", "audio/wav"),
        (".mp3", "audio/mpeg"),
        (".flac", "audio/flac"),
        (".ogg", "audio/ogg"),
        (".opus", "audio/ogg"),
        (".m4a", "audio/mp4"),
        (".webm", "audio/webm"),
    ],
)
async def test_every_format_is_taken(ending: str, media_type: str, tmp_path: Path) -> None:
    """Stereo at 48 kHz becomes mono at 24 kHz, and sounds the same."""
    require_tool("ffmpeg")
    sound = speechlike(120, 4)
    found = await examined(encoded(sound, ending, tmp_path), "misleading.name")
    assert found.media_type == media_type
    assert (found.report.sample_rate, found.report.channels) == (48_000, 2)
    assert found.report.duration_s == pytest.approx(4, abs=0.1)
    copy = read_copy(found.copy)
    assert copy.sample_rate == 24_000
    each_channel = np.sqrt(np.mean(sound**2)) * 2**-0.5  # FFmpeg makes two channels of one at 3 dB less each
    assert np.sqrt(np.mean(copy.samples**2)) == pytest.approx(each_channel, rel=0.1)


async def test_copy_of_a_plain_file_is_exact() -> None:
    """24 kHz mono of 16 bits loses nothing."""
    contents = voice_file()
    copy = read_copy((await examined(contents)).copy)
    given = np.rint(speechlike() * 32768) / 32768
    assert np.abs(copy.samples - given).max() < 2 / 32768


async def test_report_tells_what_matters() -> None:
    """Figures are those of the sound, and advice follows from them."""
    rate = 48_000
    tone = 0.5 * np.sin(2 * np.pi * 997 * np.arange(5 * rate) / rate)
    sound = np.concatenate([tone, np.zeros(5 * rate)]).astype(np.float32)
    report = (await examined(wav(sound, rate))).report
    assert report.duration_s == 10
    assert report.silent == pytest.approx(0.5, abs=0.01)
    assert report.peak_db == pytest.approx(-6, abs=0.1)
    assert report.loudness_lufs == pytest.approx(-9, abs=0.3)  # gated: silence does not count (BS.1770)
    assert report.clipped == 0
    assert report.noise_db == -100
    assert report.notes == ()


@pytest.mark.parametrize(
    ("sound", "note"),
    [
        (speechlike(seconds=1.2), "3\N{EN DASH}10 s of clear speech works best; yours is 1.2 s"),
        (np.clip(speechlike() * 20, -1, 1), "clipped"),
        (speechlike() * 0.04, "very quiet"),
        (speechlike() + 0.1 * np.random.default_rng(0).standard_normal(4 * 24_000).astype(np.float32), "background"),
    ],
    ids=["short", "clipped", "quiet", "noisy"],
)
async def test_advice(sound: np.ndarray[tuple[int], np.dtype[np.float32]], note: str) -> None:
    """A person is told what to do better."""
    report = (await examined(wav(sound))).report
    assert any(note in told for told in report.notes), report


async def test_low_rate_is_remarked() -> None:
    """A telephone's recording can be a voice, and is said to be one."""
    report = (await examined(wav(speechlike(rate=8_000), 8_000))).report
    assert any("8 kHz" in told for told in report.notes)


def silence(seconds: float) -> bytes:
    return wav(np.zeros(round(seconds * 24_000), np.float32))


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (voice_file(seconds=0.4), "0.40 s long"),
        (silence(5), "silence"),
        (b"", "not a recording"),
        (b"hello, this is text" * 100, "not a recording"),
        (b"RIFF\0\0\0\0WAVEfmt ", "cannot be decoded"),
        (b"fLaC" + bytes(5000), "cannot be decoded"),
        (b"OggS" + bytes(5000), "cannot be decoded"),
        (b"ID3" + b"#EXTM3U\nfile:///etc/passwd\n" * 50, "cannot be decoded"),
        (b"\0\0\0\x20ftypM4A " + bytes(5000), "cannot be decoded"),
        (voice_file()[:2000], "0.04 s long"),
        (wav(speechlike(rate=4_000), 4_000), "4000 samples a second"),
    ],
    ids=["short", "silent", "empty", "text", "wav", "flac", "ogg", "playlist", "m4a", "cut", "rate"],
)
async def test_unfit_recordings_are_refused_with_the_reason(contents: bytes, reason: str) -> None:
    """422, naming the file."""
    with pytest.raises(RecordingUnfit, match=reason) as refused:
        await examined(contents)
    assert refused.value.param == "file"


def made_of(source: str, path: Path) -> Path:
    """A file that FFmpeg makes of one of its own sources."""
    subprocess.run([require_tool("ffmpeg"), "-v", "error", "-f", "lavfi", "-i", source, path], check=True)
    return path


async def test_decompression_bomb_is_stopped_early(tmp_path: Path) -> None:
    """An hour of silence in half a megabyte."""
    bomb = made_of("anullsrc=r=48000:cl=mono:d=3600", tmp_path / "bomb.flac")
    with pytest.raises(RecordingUnfit, match="longer than 300 s"):
        await examined(bomb.read_bytes(), "bomb.flac")


async def test_video_without_sound_is_refused(tmp_path: Path) -> None:
    """Its container is one of ours, its contents are not."""
    film = made_of("color=d=1:s=16x16", tmp_path / "film.mp4")
    with pytest.raises(RecordingUnfit, match="holds no sound"):
        await examined(film.read_bytes(), "film.m4a")


class Canary:
    """Leaves a mark where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._path,)


async def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    """By their contents whatever the name, and by their name whatever the contents; nothing in them runs."""
    mark = tmp_path / "mark"
    pickled = pickle.dumps(Canary(mark))
    archive = tmp_path / "model.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickled)
    for contents, name in ((pickled, "voice.wav"), (archive.read_bytes(), "voice.wav"), (voice_file(), "voice.pt")):
        with pytest.raises(UnsupportedMediaType):
            await examined(contents, name)
    assert not mark.exists()


async def test_decoder_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recording is refused, and no process stays."""
    monkeypatch.setattr(recordings, "_LIMIT_S", 0.01)
    with pytest.raises(RecordingUnfit, match="too long to decode"):
        await examined(voice_file())


async def test_many_at_once_are_examined_in_turn() -> None:
    """Each gets its own answer."""
    examiner = Examiner()
    files = [voice_file(seconds=seconds) for seconds in (1.5, 2.0, 2.5, 3.0, 3.5)]
    found = await asyncio.gather(*(examiner.examine(file, "v.wav") for file in files))
    assert [round(each.report.duration_s, 1) for each in found] == [1.5, 2.0, 2.5, 3.0, 3.5]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\voices\\anna.wav", "anna.wav"),
        ("a\r\nb\0.wav", "ab.wav"),
        ("声.wav", "声.wav"),
        ("", "recording.wav"),
        (None, "recording.wav"),
        ("..", "recording.wav"),
        ("x" * 500 + ".wav", "x" * 196 + ".wav"),
    ],
)
def test_file_names_are_made_harmless(given: str | None, kept: str) -> None:
    """Printable, without a path, of bounded length."""
    assert tidy_filename(given, ".wav") == kept


def test_every_refusal_is_one_of_ours() -> None:
    """The two kinds are told apart by their status."""
    assert issubclass(RecordingUnfit, FleetError)
    assert (RecordingUnfit.status, UnsupportedMediaType.status) == (422, 415)
