"""Recordings that people upload: examined in a process of their own before anything is kept."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import structlog

from fleet.errors import RecordingUnfit, StorageFull, UnsupportedMediaType
from fleet.library_contract import RecordingReport
from workers.engine.base import Recording
from workers.voices import examiner

log = structlog.get_logger()

LONGEST_TOGETHER_S = examiner.LONGEST_S
"""Of all recordings of one voice."""

_LIMIT_S = 90.0
"""For one examination; its own limit on computing time is below."""

_AT_ONCE = 2
_LONGEST_FILENAME = 200
_NOT_SOUND = re.compile(r"\.(pt|pth|pkl|pickle|ckpt|bin|safetensors|npy|npz|zip)$", re.IGNORECASE)
_ZIPS_AND_PICKLES = (b"PK\x03\x04", *(bytes((0x80, protocol)) for protocol in range(2, 6)))
_TAKEN = "WAV, MP3, FLAC, OGG, M4A and WebM are taken"


@dataclass(frozen=True, slots=True)
class Container:
    """A format of files: FFmpeg's name for its reader, and what it is called over HTTP and in file names."""

    demuxer: str
    media_type: str
    ending: str


_WAV = Container("wav", "audio/wav", ".wav")
_MP3 = Container("mp3", "audio/mpeg", ".mp3")
_FLAC = Container("flac", "audio/flac", ".flac")
_OGG = Container("ogg", "audio/ogg", ".ogg")
_M4A = Container("mov", "audio/mp4", ".m4a")
_WEBM = Container("matroska", "audio/webm", ".webm")


@dataclass(frozen=True, slots=True)
class Examined:
    """A recording that can be kept: as given, and as 24 kHz mono FLAC."""

    filename: str
    media_type: str
    contents: bytes
    copy: bytes
    report: RecordingReport


def container_of(contents: bytes, filename: str) -> Container:
    """Told by the first bytes, whatever the name says.

    Raises `UnsupportedMediaType` for what is no recording by its name or kind, and `RecordingUnfit` for what is none
    by its contents.
    """
    head = contents[:16]
    if _NOT_SOUND.search(filename) or head.startswith(_ZIPS_AND_PICKLES):
        raise UnsupportedMediaType(f"{filename!r} is no recording; {_TAKEN}", param="file")
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _WAV
    if head.startswith(b"fLaC"):
        return _FLAC
    if head.startswith(b"OggS"):
        return _OGG
    if head[4:8] == b"ftyp":
        return _M4A
    if head.startswith(b"\x1aE\xdf\xa3"):
        return _WEBM
    # An MPEG frame begins with eleven set bits; layer bits of 00 would be AAC in ADTS.
    if head.startswith(b"ID3") or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06):
        return _MP3
    raise RecordingUnfit(f"{filename!r} is not a recording: its contents are no sound file; {_TAKEN}", param="file")


def tidy_filename(name: str | None, ending: str) -> str:
    """The last part of what the sender calls the file, printable and of bounded length; never used as a path."""
    last = PureWindowsPath(PurePosixPath(name or "").name).name
    kept = "".join(character for character in unicodedata.normalize("NFC", last) if character.isprintable())
    kept = kept.encode(errors="ignore").decode().strip(". ")
    return kept[-_LONGEST_FILENAME:] or f"recording{ending}"


class Examiner:
    """Examines at most two recordings at once; the others wait their turn."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def examine(self, contents: bytes, filename: str | None) -> Examined:
        """Raises `RecordingUnfit` with the reason, `UnsupportedMediaType`, or `StorageFull`."""
        container = container_of(contents, filename or "")
        name = tidy_filename(filename, container.ending)
        async with self._places:
            with tempfile.TemporaryDirectory(prefix="examined-") as folder:
                source, target = Path(folder) / "given", Path(folder) / "copy.flac"
                try:
                    await asyncio.to_thread(source.write_bytes, contents)
                except OSError as error:
                    raise StorageFull(f"there is no room to examine {name!r}: {error.strerror}") from error
                found = await _run(source, container.demuxer, target)
                if "unfit" in found:
                    raise RecordingUnfit(f"{name!r} {found['unfit']}", param="file")
                copy = await asyncio.to_thread(target.read_bytes)
        report = RecordingReport.model_validate(found["report"])
        return Examined(name, container.media_type, contents, copy, report)


async def _run(source: Path, demuxer: str, target: Path) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", examiner.__file__, str(source), demuxer, str(target)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            told, complaint = await process.communicate()
    except TimeoutError:
        return {"unfit": "takes too long to decode"}
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        found = json.loads(told)
    except ValueError:
        found = None
    if process.returncode == 0 and isinstance(found, dict):
        return found
    log.warning("examination_failed", code=process.returncode, said=complaint.decode(errors="replace")[-500:])
    return {"unfit": "cannot be decoded: the decoder gave up on it"}


def read_copy(contents: bytes) -> Recording:
    """A kept copy as an engine takes it."""
    return Recording(examiner.read_copy(contents), examiner.COPY_RATE)
