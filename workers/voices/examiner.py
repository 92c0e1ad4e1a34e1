"""`python examiner.py INPUT DEMUXER OUTPUT`: a process of its own that decodes one recording, judges it, copies it.

What strangers upload is decoded here, within limits on time, memory and length, so that whatever a file does to a
decoder ends this process alone. Writes the copy, 24 kHz mono FLAC of 24 bit, to OUTPUT and one JSON object to standard
output: `{"report": ...}`, or `{"unfit": reason}` for a person.
"""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import soxr
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.filter import Graph

SHORTEST_S, LONGEST_S = 1.0, 300.0
"""Of one recording."""

MOST_CHANNELS = 8
LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
"""Hz."""

COPY_RATE = 24_000
"""Hz: what Chatterbox itself begins with, whatever a recording's rate is."""

CPU_LIMIT_S = 60
MEMORY_LIMIT_BYTES = 3 * 2**30
FILE_LIMIT_BYTES = 128 * 2**20

_FRAME_S = 0.02
_SILENT_DB = -50.0
"""Frames below it are silence: room noise of a quiet recording."""

_BELOW_SPEECH_DB = 40.0
"""So are those so far below the loudest ones."""

_LEAST_SPEECH_S = 0.5
_CLIPPED = 0.999
_FLOOR_DB = -100.0
_AT_ONCE = COPY_RATE

Samples = np.ndarray[Any, np.dtype[np.float32]]


class Unfit(Exception):
    """The recording cannot be a voice; the message goes on from "the recording"."""


def main(source: str, demuxer: str, target: str) -> None:
    for limit, value in (
        (resource.RLIMIT_CPU, CPU_LIMIT_S),
        (resource.RLIMIT_AS, MEMORY_LIMIT_BYTES),
        (resource.RLIMIT_FSIZE, FILE_LIMIT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    av.logging.set_level(None)
    try:
        samples, rate, channels = decode(source, demuxer)
        found: dict[str, Any] = {"report": report(samples, rate, channels)}
        write_copy(samples, rate, target)
    except Unfit as reason:
        found = {"unfit": str(reason)}
    except MemoryError:
        found = {"unfit": "takes more memory to decode than a recording may"}
    json.dump(found, sys.stdout)


def decode(source: str, demuxer: str) -> tuple[Samples, int, int]:
    """The mean of the channels, the rate in Hz and the number of channels. Raises `Unfit`."""
    try:
        # A named demuxer reads this one file; FFmpeg's own guess could take it for a playlist of others.
        with av.open(source, format=demuxer, options={"protocol_whitelist": "file"}) as container:
            if not container.streams.audio:
                raise Unfit("holds no sound")
            stream = container.streams.audio[0]
            rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
            if not LOWEST_RATE <= rate <= HIGHEST_RATE:
                raise Unfit(f"has {rate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} are taken")
            if not 1 <= channels <= MOST_CHANNELS:
                raise Unfit(f"has {channels} channels; at most {MOST_CHANNELS} are taken")
            pieces = list(_pieces(container, stream))
    except av.FFmpegError as error:
        raise Unfit(f"cannot be decoded: {error.strerror or error}") from error
    if not pieces:
        raise Unfit("cannot be decoded: there is no sound in it")
    samples = np.concatenate(pieces)
    if not np.isfinite(samples).all():
        raise Unfit("holds samples that are not finite")
    return samples, rate, channels


def _pieces(container: InputContainer, stream: AudioStream) -> Iterator[Samples]:
    """The mean of the channels, packet by packet, until there is too much of it."""
    rate, held = stream.codec_context.sample_rate, 0
    resampler = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=rate)
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:  # one bad packet, or a tag after the last good one
            continue
        for frame in frames:
            for even in resampler.resample(frame):
                piece = even.to_ndarray().mean(axis=0, dtype=np.float32)
                held += len(piece)
                yield piece
        if held > LONGEST_S * rate:
            raise Unfit(f"is longer than {LONGEST_S:.0f} s")


def report(samples: Samples, rate: int, channels: int) -> dict[str, Any]:
    """What a person wants to know of the recording. Raises `Unfit` for what is too short or silent."""
    duration_s = len(samples) / rate
    if duration_s < SHORTEST_S:
        raise Unfit(f"is {duration_s:.2f} s long; it must be at least {SHORTEST_S:.0f} s, and 3 to 10 s are best")
    levels = _levels(samples, rate)
    speech_db, noise_db = float(np.percentile(levels, 95)), float(np.percentile(levels, 10))
    silent = float(np.mean(levels < max(_SILENT_DB, speech_db - _BELOW_SPEECH_DB)))
    if duration_s * (1 - silent) < _LEAST_SPEECH_S:
        raise Unfit(f"holds no speech: {silent:.0%} of its {duration_s:.1f} s are silence")
    found = {
        "duration_s": round(duration_s, 3),
        "sample_rate": rate,
        "channels": channels,
        "loudness_lufs": round(loudness(samples, rate), 1),
        "peak_db": round(20 * float(np.log10(max(float(np.abs(samples).max()), 1e-5))), 1),
        "clipped": round(float(np.mean(np.abs(samples) >= _CLIPPED)), 5),
        "silent": round(silent, 3),
        "noise_db": round(noise_db, 1),
    }
    return {**found, "notes": _notes(found, speech_db)}


def _levels(samples: Samples, rate: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The RMS of each 20 ms, in dB of full scale."""
    length = round(_FRAME_S * rate)
    frames = samples[: len(samples) // length * length].reshape(-1, length)
    power = np.mean(frames.astype(np.float64) ** 2, axis=1)
    levels: np.ndarray[Any, np.dtype[np.float64]] = np.maximum(10 * np.log10(np.maximum(power, 1e-12)), _FLOOR_DB)
    return levels


def loudness(samples: Samples, rate: int) -> float:
    """Integrated loudness in LUFS (ITU-R BS.1770, by FFmpeg's ebur128); -70 for what is below its gate."""
    graph = Graph()
    source = graph.add_abuffer(sample_rate=rate, format="flt", layout="mono", time_base=Fraction(1, rate))
    meter, sink = graph.add("ebur128", "metadata=1"), graph.add("abuffersink")
    source.link_to(meter)
    meter.link_to(sink)
    graph.configure()
    found = -70.0
    for start in range(0, len(samples), rate):
        graph.push(_frame(samples[start : start + rate], rate, "flt"))
        found = _read_meter(graph, found)
    graph.push(None)
    return max(-70.0, _read_meter(graph, found))


def _read_meter(graph: Graph, found: float) -> float:
    while True:
        try:
            told = graph.pull().metadata.get("lavfi.r128.I")
        except (av.error.BlockingIOError, av.error.EOFError):
            return found
        if told is not None and np.isfinite(float(told)):
            found = float(told)


def _frame(samples: Samples, rate: int, kind: str) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(samples[np.newaxis, :], format=kind, layout="mono")
    frame.sample_rate = rate
    return frame


def _notes(found: dict[str, Any], speech_db: float) -> list[str]:
    """Advice, most important first."""
    notes = []
    if not 3 <= found["duration_s"] <= 15:
        notes.append(f"3\N{EN DASH}10 s of clear speech works best; yours is {found['duration_s']:.1f} s")
    if found["clipped"] > 0.001:
        notes.append(f"{found['clipped']:.1%} of it is clipped: record at a lower level")
    if found["noise_db"] > speech_db - 20 and found["silent"] < 0.9:
        notes.append(f"the background is only {speech_db - found['noise_db']:.0f} dB below the speech")
    if found["loudness_lufs"] < -36:
        notes.append(f"it is very quiet: {found['loudness_lufs']:.0f} LUFS, where -23 is usual")
    if found["silent"] > 0.5:
        notes.append(f"{found['silent']:.0%} of it is silence")
    if found["sample_rate"] < 16_000:
        notes.append(f"it is sampled at {found['sample_rate'] / 1000:g} kHz: the highest sounds of speech are missing")
    return notes


def write_copy(samples: Samples, rate: int, target: str) -> None:
    """24 kHz mono FLAC, at the level it was recorded at; what is above full scale is scaled down as a whole."""
    even = soxr.resample(samples, rate, COPY_RATE, quality="HQ").astype(np.float32)
    even /= max(1.0, float(np.abs(even).max()))
    whole = np.clip(np.rint(even.astype(np.float64) * 2**23), -(2**23), 2**23 - 1).astype(np.int32) << 8
    with av.open(target, "w", format="flac", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("flac", rate=COPY_RATE, options={"compression_level": "5"})
        stream.codec_context.layout = "mono"
        stream.codec_context.format = "s32"
        for start in range(0, len(whole), _AT_ONCE):
            frame = _frame(whole[start : start + _AT_ONCE], COPY_RATE, "s32")
            frame.time_base = Fraction(1, COPY_RATE)
            frame.pts = start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_copy(contents: bytes) -> Samples:
    """The samples of a copy, float32 within ±1 at 24 kHz."""
    with av.open(io.BytesIO(contents), "r", format="flac") as container:
        pieces = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    return (np.concatenate(pieces).astype(np.float64) / 2**31).astype(np.float32)


if __name__ == "__main__":
    main(*sys.argv[1:])
