"""Our watermark against the real perth package: what it adds, and that its own detector finds it."""

from __future__ import annotations

import asyncio
import inspect
import sys
from contextlib import aclosing
from typing import Any

import numpy as np
import perth
import psutil
import pytest
import torch
from librosa import resample
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from fleet.contract import SAMPLE_RATE
from fleet.startup_errors import EngineUnavailable
from workers.engine.base import Job, Samples
from workers.engine.chatterbox.watermark import CONTEXT, HOP, Watermarker
from workers.engine.espeak import EspeakEngine

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = "The quick brown fox jumps over the lazy dog. She sells sea shells, and nobody knows why."

CLIPS = ("espeak alto", "espeak tenor", "synthetic")
"""The tenor's pauses are digital silence; the synthetic clip sounds up to 11 kHz over a noise floor."""

FIRST = 24
"""Hops in the first chunk of a stream: 240 ms."""

LATE = 3_840
"""Samples of context to the right when a stream cannot wait longer: 160 ms."""

CHUNKINGS = {
    "as streamed": (FIRST, 100, 200, 400),
    "odd sizes": (FIRST, 37, 5, 61, 113, 1, 89),
    "smallest": (FIRST, 11),
}
"""Hops in each chunk; the last size goes on to the end."""


class Own:
    """PerTh itself, at 24 kHz. Without inference mode it keeps each call's graph."""

    def __init__(self) -> None:
        self._perth: Any = perth.PerthImplicitWatermarker()

    @torch.inference_mode()
    def apply(self, x: Samples) -> Samples:
        """Marked, cut to whole hops."""
        result: Samples = self._perth.apply_watermark(x, sample_rate=SAMPLE_RATE)
        return result

    @torch.inference_mode()
    def find(self, x: Samples) -> float:
        """1 for marked sound, 0 for other."""
        return float(self._perth.get_watermark(x, sample_rate=SAMPLE_RATE, round=False))


@pytest.fixture(scope="module")
def own() -> Own:
    return Own()


@pytest.fixture(scope="module")
def marker() -> Watermarker:
    return Watermarker(torch.device("cpu"))


@pytest.fixture(scope="module")
async def clips(engine: EspeakEngine) -> dict[str, Samples]:
    """4 to 6 s each, none a whole number of hops long."""

    async def spoken(voice: str) -> Samples:
        async with aclosing(engine.submit(Job(id=f"watermark {voice}", text=TEXT, voice=voice))) as stream:
            return np.concatenate([part async for part in stream])

    alto, tenor = await asyncio.gather(spoken("alto"), spoken("tenor"))
    every = dict(zip(CLIPS, (alto, tenor, synthetic()), strict=True))
    return {name: clip[: len(clip) // HOP * HOP - 100] for name, clip in every.items()}


def synthetic() -> Samples:
    """6 s of gliding harmonics in syllables."""
    time = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    pitch = 130 + 30 * np.sin(2 * np.pi * 0.7 * time) + 5 * np.sin(2 * np.pi * 5 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    voice = np.zeros(len(time))
    for k in range(1, 60):
        voice += np.sin(k * phase + k) / k**1.2 * (k * pitch < 11_000)
    syllables = np.clip(1.5 * np.sin(2 * np.pi * 1.6 * time) + 0.4, 0, 1)
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.12 * voice * syllables + 0.002 * noise).astype(np.float32)


def marked(marker: Watermarker, x: Samples) -> Samples:
    result: Samples = marker.apply(torch.from_numpy(x)[None])[0].numpy()
    return result


def in_chunks(marker: Watermarker, x: Samples, hops: tuple[int, ...], *, left: int, right: int) -> Samples:
    """Marked chunk by chunk, with `left` and `right` samples of context where there are so many."""
    parts, start, turn = [], 0, 0
    while start < len(x):
        stop = min(start + hops[min(turn, len(hops) - 1)] * HOP, len(x))
        before, after = min(left, start), min(right, len(x) - stop)
        chunk = torch.from_numpy(x[start - before : stop + after])[None]
        parts.append(marker.apply_chunk(chunk, before, after)[0].numpy())
        start, turn = stop, turn + 1
    return np.concatenate(parts)


def decibels(of: Samples, to: Samples) -> float:
    """The power of one sound over that of another."""
    return 10 * float(np.log10(np.sum(of.astype(np.float64) ** 2) / np.sum(to.astype(np.float64) ** 2)))


@pytest.mark.parametrize(("name", "below"), [("espeak alto", -90), ("espeak tenor", -70), ("synthetic", -85)])
def test_adds_what_perth_adds(
    own: Own, marker: Watermarker, clips: dict[str, Samples], name: str, below: float
) -> None:
    """What we add is what PerTh adds: the difference is 70 dB below it, and 50 dB below it at the sound's ends."""
    # The ends differ because PerTh mirrors the sound about a sample of its own rate and leaves the last part of a hop;
    # the tenor also at the edges of digital silence.
    x = clips[name]
    theirs = own.apply(x)
    length = len(theirs)
    through = resample(resample(x, orig_sr=SAMPLE_RATE, target_sr=32_000), orig_sr=32_000, target_sr=SAMPLE_RATE)
    change = theirs - through[:length]
    ours = (marked(marker, x) - x)[:length]
    assert -20 < decibels(change, x) < -10
    assert decibels(ours - change, change) < -50
    inside = slice(SAMPLE_RATE // 10, -SAMPLE_RATE // 10)
    assert decibels(ours[inside] - change[inside], change[inside]) < below


@pytest.mark.parametrize("name", CLIPS)
def test_sounds_as_perth_makes_it(own: Own, marker: Watermarker, clips: dict[str, Samples], name: str) -> None:
    """Our output is PerTh's, but for what its resampling takes away near 12 kHz."""
    x = clips[name]
    theirs = own.apply(x)
    ours = marked(marker, x)
    assert ours.shape == x.shape
    assert decibels(ours[: len(theirs)] - theirs, theirs) < (-40 if name == "synthetic" else -70)


@pytest.mark.parametrize("name", CLIPS)
def test_perth_finds_it(own: Own, marker: Watermarker, clips: dict[str, Samples], name: str) -> None:
    """PerTh's detector is sure of our mark, in 16 bits too, and as sure that there is none in the sound before it."""
    x = clips[name]
    y = marked(marker, x)
    assert own.find(y) > 0.99
    assert own.find((np.round(y * 32_767) / 32_767).astype(np.float32)) > 0.99
    assert own.find(x) < 0.1


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("name", CLIPS)
def test_perth_finds_it_in_a_stream(
    own: Own, marker: Watermarker, clips: dict[str, Samples], name: str, chunking: str
) -> None:
    """Sound marked chunk by chunk, with 160 ms of what follows, is found marked."""
    y = in_chunks(marker, clips[name], CHUNKINGS[chunking], left=CONTEXT, right=LATE)
    assert y.shape == clips[name].shape
    assert own.find(y) > 0.99


@pytest.mark.parametrize("chunking", CHUNKINGS)
@pytest.mark.parametrize("name", CLIPS)
def test_chunks_are_the_whole(marker: Watermarker, clips: dict[str, Samples], name: str, chunking: str) -> None:
    """With full context, chunks joined are the whole sound marked at once, within 1e-6; with 160 ms, within 3e-4."""
    x = clips[name]
    whole = marked(marker, x)
    full = in_chunks(marker, x, CHUNKINGS[chunking], left=CONTEXT, right=CONTEXT)
    late = in_chunks(marker, x, CHUNKINGS[chunking], left=CONTEXT, right=LATE)
    none = in_chunks(marker, x, CHUNKINGS[chunking], left=0, right=0)
    assert np.abs(full - whole).max() < 1e-6
    assert np.abs(late - whole).max() < 3e-4
    assert np.abs(none - whole).max() > 5e-3


def test_rows_are_alone(marker: Watermarker, clips: dict[str, Samples]) -> None:
    """A row is marked the same among louder, silent and other rows."""
    second = [clip[:SAMPLE_RATE] for clip in clips.values()]
    rows = torch.from_numpy(np.stack([*second, 0.001 * second[0], np.zeros_like(second[0])]))
    together = marker.apply(rows)
    alone = torch.cat([marker.apply(row[None]) for row in rows])
    assert (together - alone).abs().max() < 1e-6


@pytest.mark.parametrize("length", [1, 100, HOP, 767, 768, 769, 1_536, 5_000])
def test_any_length_is_marked(marker: Watermarker, length: int) -> None:
    """However short, sound keeps its length and stays finite, and zeros stay zeros."""
    x = 0.1 * torch.randn(2, length, generator=torch.Generator().manual_seed(length))
    x[1] = 0
    y = marker.apply(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    assert (y - x).abs().max() < 0.1
    assert not y[1].any()


def test_silence_stays_silent(marker: Watermarker, clips: dict[str, Samples]) -> None:
    """Digital silence within speech stays so, but for the window around it."""
    x = clips["espeak alto"].copy()
    x[2 * SAMPLE_RATE : 3 * SAMPLE_RATE] = 0
    y = marked(marker, x)
    assert np.isfinite(y).all()
    assert not y[2 * SAMPLE_RATE + 1_536 : 3 * SAMPLE_RATE - 1_536].any()


def test_reads_nothing_back(marker: Watermarker) -> None:
    """No value decides what is computed, so that a GPU can record it; torch's own inverse looks at one."""
    # Without its inference mode, in which torch would not show the steps that its own functions are made of.
    apply = inspect.unwrap(Watermarker.apply)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        result = apply(marker, torch.zeros(2, 5_000))
        spectrum = torch.zeros(2, 769, 21, dtype=torch.complex64)
        with pytest.raises(DataDependentOutputException):
            torch.istft(spectrum, 1_536, HOP, window=torch.hann_window(1_536))
    assert result.shape == (2, 5_000)


def test_keeps_nothing(marker: Watermarker) -> None:
    """200 calls leave no graph and no memory behind."""
    x = torch.zeros(1, SAMPLE_RATE // 2, requires_grad=True)
    for _ in range(20):
        y = marker.apply(x)
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in range(200):
        y = marker.apply(x)
    assert not y.requires_grad
    assert process.memory_info().rss - before < 16 * 2**20


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pkg_resources, which newer setuptools lacks, the error names the setuptools to install."""
    for name in [name for name in sys.modules if name.split(".")[0] == "perth"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(EngineUnavailable, match=r"pkg_resources.*setuptools<81"):
        Watermarker(torch.device("cpu"))
