"""The process that holds libespeak-ng, and nothing else: standard library only, started by file name.

libespeak-ng keeps state in static variables that no call resets (its pitch flutter, its waveform phase), so the same
text sounds different the second time; unloading the library resets them but leaks a dictionary a turn. So every turn
runs in a fork of a process that has loaded the library and never spoken: each turn starts from the same state, frees
all it took, and if some text crashes the library, one turn is lost and nothing else.

Standard input: one JSON object a line, `{"text", "voice", "pitch", "range", "rate"}`.
Standard output: frames of a little-endian uint32 length and that many bytes. The first frame describes the library as
JSON. Then for each turn frames of signed 16-bit samples, and one of the two marks below. A frame fits in one atomic
pipe write, so a crash never leaves half of one.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import struct
import sys

TURN_ENDED = 0
TURN_FAILED = 0xFFFFFFFF
FRAME_LENGTH = struct.Struct("<I")

# From espeak-ng's speak_lib.h.
_OUTPUT_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_TEXT_IS_UTF8 = 1
_PARAMETER_RATE, _PARAMETER_PITCH, _PARAMETER_RANGE = 1, 3, 4

_SYNTH_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)

_CHUNK_MS = 60
_PIPE_BUF = 4096
_SEED = 1


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_void_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("reserved", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )


def main(library_path: str, data_path: str) -> None:
    """Serve turns until standard input ends."""
    library = ctypes.CDLL(library_path)
    rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, _CHUNK_MS, data_path.encode(), _DO_NOT_EXIT)
    if rate <= 0:
        sys.exit(f"libespeak-ng could not load its data from {data_path}")
    library.espeak_ng_SetRandSeed(ctypes.c_long(_SEED))
    library.espeak_Info.restype = ctypes.c_char_p
    version = library.espeak_Info(None).decode()
    description = {"sample_rate": rate, "version": version, "languages": list_languages(library, data_path)}
    write_frame(json.dumps(description).encode())
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            speak(library, json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        write_mark(TURN_ENDED if status == 0 else TURN_FAILED)


def list_languages(library: ctypes.CDLL, data_path: str) -> dict[str, str]:
    """Every language tag that can be spoken, lower-case, against the name of the voice that speaks it best."""
    library.espeak_ListVoices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    voices = library.espeak_ListVoices(None)
    best: dict[str, tuple[int, str]] = {}
    index = 0
    while voices[index]:
        tags = _language_tags(voices[index].contents.languages)
        identifier = voices[index].contents.identifier.decode()
        if tags and _has_dictionary(data_path, identifier, tags[0][1]):
            for priority, tag in tags:
                candidate = (priority, os.path.basename(identifier))
                best[tag] = min(best.get(tag, candidate), candidate)
        index += 1
    return {tag: name for tag, (_, name) in sorted(best.items())}


def _language_tags(address: int) -> list[tuple[int, str]]:
    """A voice's tags with their priorities (lower is better): a run of priority bytes and strings, ended by a zero."""
    tags = []
    while priority := ctypes.string_at(address, 1)[0]:
        tag = ctypes.string_at(address + 1)
        tags.append((priority, tag.decode().lower()))
        address += len(tag) + 2
    return tags


def _has_dictionary(data_path: str, identifier: str, language: str) -> bool:
    """Some voices are listed although the dictionary they name, or that of their language, was not shipped."""
    definition = os.path.join(data_path, "lang", identifier)
    if not os.path.isfile(definition):
        return False
    name = language.split("-", maxsplit=1)[0]
    with open(definition, encoding="utf-8") as lines:
        for line in lines:
            words = line.split()
            if len(words) > 1 and words[0] == "dictionary":
                name = words[1]
    return os.path.isfile(os.path.join(data_path, f"{name}_dict"))


def speak(library: ctypes.CDLL, turn: dict[str, object]) -> None:
    """Write one turn's sound to standard output."""

    def on_samples(address: int | None, count: int, _events: int) -> int:
        if address and count > 0:
            write_sound(ctypes.string_at(address, count * 2))
        return 0

    callback = _SYNTH_CALLBACK(on_samples)
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(str(turn["voice"]).encode()) != 0:
        os._exit(1)
    for parameter, value in (
        (_PARAMETER_RATE, turn["rate"]),
        (_PARAMETER_PITCH, turn["pitch"]),
        (_PARAMETER_RANGE, turn["range"]),
    ):
        library.espeak_SetParameter(parameter, value, 0)
    text = str(turn["text"]).encode() + b"\0"
    library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, _TEXT_IS_UTF8, None, None)


def write_sound(samples: bytes) -> None:
    """Samples as frames small enough that the pipe takes each whole."""
    step = _PIPE_BUF - FRAME_LENGTH.size
    for start in range(0, len(samples), step):
        write_frame(samples[start : start + step])


def write_frame(payload: bytes) -> None:
    _write(FRAME_LENGTH.pack(len(payload)) + payload)


def write_mark(mark: int) -> None:
    _write(FRAME_LENGTH.pack(mark))


def _write(data: bytes) -> None:
    try:
        while data:
            data = data[os.write(1, data) :]
    except BrokenPipeError:  # the worker was killed: there is nobody to speak for
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
