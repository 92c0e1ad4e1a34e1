"""Sound made into the bytes of a file format while it arrives, by FFmpeg's encoders through PyAV."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import IO, Protocol, cast
from weakref import finalize

import av
import av.container
import numpy as np
from av.audio.stream import AudioStream

from fleet.contract import SAMPLE_RATE, AudioFormat
from workers.engine.base import Samples


class Encoder(Protocol):
    """Turns samples at 24 kHz, given piece by piece, into one file or stream."""

    def encode(self, samples: Samples) -> bytes:
        """What can be sent after these samples; may be empty while a frame fills up."""
        ...

    def finish(self) -> bytes:
        """The rest. Nothing may be encoded after it."""
        ...


def encoder_for(audio_format: AudioFormat) -> Encoder:
    if audio_format is AudioFormat.pcm:
        return PcmEncoder()
    return ContainerEncoder(_RECIPES[audio_format])


Int16 = np.ndarray[tuple[int], np.dtype[np.int16]]


def to_int16(samples: Samples) -> Int16:
    """Samples within ±1 as 16-bit integers; what lies outside is clipped."""
    return np.clip(np.rint(samples * 32767), -32768, 32767).astype("<i2")


class PcmEncoder:
    """Bare signed 16-bit little-endian samples."""

    def encode(self, samples: Samples) -> bytes:
        return to_int16(samples).tobytes()

    def finish(self) -> bytes:
        return b""


@dataclass(frozen=True, slots=True)
class _Recipe:
    """An FFmpeg muxer, with options for streams and for files, and encoder. `bit_rate` in bit/s, 0 for lossless."""

    muxer: str
    codec: str
    sample_format: str
    bit_rate: int
    options: dict[str, str]
    of_files: dict[str, str] = field(default_factory=dict)


_NO_TAGS = {"id3v2_version": "0"}

_RECIPES = {
    AudioFormat.wav: _Recipe("wav", "pcm_s16le", "s16", 0, {}),
    AudioFormat.flac: _Recipe("flac", "flac", "s16", 0, {}),
    # The length is not known when an MP3 stream begins, so a Xing frame that promises one would be wrong.
    AudioFormat.mp3: _Recipe("mp3", "libmp3lame", "s16p", 96_000, {"write_xing": "0", **_NO_TAGS}, _NO_TAGS),
    AudioFormat.aac: _Recipe("adts", "aac", "fltp", 96_000, {}),
    # Ogg's default page holds a second of sound before it is sent; 60 ms (in microseconds) keeps the first byte early.
    AudioFormat.opus: _Recipe("ogg", "libopus", "s16", 48_000, {"page_duration": "60000"}),
}


class ContainerEncoder:
    """Any format FFmpeg writes to a pipe. Sizes in the header stay unknown, as in every stream."""

    def __init__(self, recipe: _Recipe) -> None:
        self._sink = _Sink()
        self._muxer = _Muxer(recipe, self._sink, recipe.options)

    def encode(self, samples: Samples) -> bytes:
        self._muxer.add(to_int16(samples))
        return self._sink.take()

    def finish(self) -> bytes:
        self._muxer.finish()
        return self._sink.take()


class FileEncoder:
    """The same formats written to a file; WAV, FLAC and MP3 then begin with how long it is."""

    def __init__(self, audio_format: AudioFormat, file: IO[bytes]) -> None:
        self._muxer = _Muxer(_RECIPES[audio_format], file, _RECIPES[audio_format].of_files)

    def encode(self, samples: Int16) -> None:
        self._muxer.add(samples)

    def finish(self) -> None:
        self._muxer.finish()


class _Muxer:
    def __init__(self, recipe: _Recipe, sink: _Sink | IO[bytes], options: dict[str, str]) -> None:
        # Bit-exact: without it Ogg draws its stream's serial number by lot.
        options = {"flush_packets": "1", "fflags": "+bitexact", **options}
        container = av.open(sink, "w", format=recipe.muxer, options=options)
        self._container = container
        finalize(self, _close, container).atexit = False
        self._stream = cast(AudioStream, self._container.add_stream(recipe.codec, rate=SAMPLE_RATE))
        self._stream.codec_context.layout = "mono"
        self._stream.codec_context.format = recipe.sample_format
        if recipe.bit_rate:
            self._stream.bit_rate = recipe.bit_rate
        self._position = 0

    def add(self, samples: Int16) -> None:
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis, :], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.time_base = Fraction(1, SAMPLE_RATE)
        frame.pts = self._position
        self._position += len(samples)
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


def _close(container: av.container.OutputContainer) -> None:
    """Of an encoder that was left: a container and its streams hold each other, with FLAC more than a megabyte."""
    with suppress(OSError, ValueError):  # it may have been left because the file took no more, or was closed
        container.close()


class _Sink:
    """A file that only takes, so that FFmpeg never goes back to fill in a size."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken
