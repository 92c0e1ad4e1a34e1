"""The sizes a streamed WAV file could not know when it began."""

from __future__ import annotations

import struct
from pathlib import Path

_UNKNOWN = 0xFFFFFFFF
_RIFF_HEADER, _CHUNK_HEADER = 12, 8


def complete_sizes(path: Path) -> None:
    """Write the real sizes into a finished file whose header left them unknown, as RIFF demands of a file."""
    length = path.stat().st_size
    with path.open("r+b") as file:
        head = file.read(_RIFF_HEADER)
        if len(head) < _RIFF_HEADER or head[:4] != b"RIFF" or struct.unpack("<I", head[4:8])[0] != _UNKNOWN:
            return
        file.seek(4)
        file.write(struct.pack("<I", length - 8))
        position = _RIFF_HEADER
        while position + _CHUNK_HEADER <= length:
            file.seek(position)
            name, size = struct.unpack("<4sI", file.read(_CHUNK_HEADER))
            if name == b"data":
                file.seek(position + 4)
                file.write(struct.pack("<I", length - position - _CHUNK_HEADER))
                return
            position += _CHUNK_HEADER + size + size % 2
