"""Sound in parts: as the whole would be, without clicks, each stream for itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from workers.engine.chatterbox.hift import CONTEXT, SAMPLES_PER_FRAME, Hift
from workers.engine.chatterbox.hops import PROVISIONAL
from workers.engine.chatterbox.rendering import Part, Renderer, SoundState
from workers.engine.chatterbox.s3gen import S3Gen
from workers.engine.chatterbox.watermark import CONTEXT as WATERMARK_CONTEXT
from workers.engine.chatterbox.watermark import Watermarker

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES = 60
TRIM = 2 * SAMPLES_PER_FRAME
"""Samples, 40 ms, that are silenced and faded in."""

SIZES = {"as streamed": (16, 24, 20), "small": (5,) * 12, "one large": (50, 10), "smallest": (*(2,) * 10, 40)}
"""Frames of the parts."""


@pytest.fixture(scope="module")
def hift(s3gen: S3Gen) -> Hift:
    return s3gen.hift


@pytest.fixture(scope="module")
def renderer(hift: Hift) -> Renderer:
    """Without a watermark."""
    return Renderer(hift, None)


def a_mel(seed: int = 0, frames: int = FRAMES) -> Tensor:
    """As S3Gen's own are with random weights."""
    return 1.4 * torch.randn(frames, 80, generator=torch.Generator().manual_seed(seed))


def parts_of(hift: Hift, mel: Tensor, sizes: Sequence[int], provisional: int, seed: int = 5) -> Iterator[Part]:
    """Parts of a fixed mel, all but the last with the frames behind them."""
    state, first = SoundState(hift), 0
    for final in sizes:
        stop = first + final + provisional if first + final < len(mel) else len(mel)
        yield Part(state, mel[first:stop], first, final, seed)
        first += final


def rendered(renderer: Renderer, parts: Iterator[Part]) -> list[Tensor]:
    return [sound for part in parts for sound in renderer.render([part])]


def whole(renderer: Renderer, hift: Hift, mel: Tensor, seed: int = 5) -> Tensor:
    [sound] = rendered(renderer, parts_of(hift, mel, [len(mel)], 0, seed))
    return sound


def largest(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max())


@pytest.mark.parametrize("sizes", SIZES)
def test_parts_are_the_whole(renderer: Renderer, hift: Hift, sizes: str) -> None:
    """Parts of a fixed mel that have `CONTEXT` frames behind them come out as one whole would, to 1e-3."""
    # Measured: 2e-5 as streamed, 1e-4 with the smallest parts; rounding of F0, added up to a phase.
    mel = a_mel()
    parts = rendered(renderer, parts_of(hift, mel, SIZES[sizes], CONTEXT))
    assert [len(part) for part in parts] == [SAMPLES_PER_FRAME * size for size in SIZES[sizes]]
    expected = whole(renderer, hift, mel)
    assert len(expected) == SAMPLES_PER_FRAME * FRAMES
    assert largest(torch.cat(parts), expected) < 1e-3
    assert expected.std() > 0.02


@pytest.mark.parametrize("sizes", ["as streamed", "small"])
def test_parts_with_little_behind_them_are_nearly_the_whole(renderer: Renderer, hift: Hift, sizes: str) -> None:
    """With the frames that a stream computes ahead, the difference stays below a tenth of the peak."""
    # Measured: 0.009 at most, of a peak at 0.2; with 4 frames instead of 8 it is 0.18, for the phase goes astray.
    parts = rendered(renderer, parts_of(hift, a_mel(), SIZES[sizes], PROVISIONAL))
    assert largest(torch.cat(parts), whole(renderer, hift, a_mel())) < 0.02


def test_the_whole_is_what_hift_makes(renderer: Renderer, hift: Hift) -> None:
    """Behind the trim, a stream of one part is the network's own sound, and the trim fades it in."""
    mel = a_mel()
    f0 = hift.f0(mel[None])
    zero = torch.zeros(1, dtype=torch.int64)
    [plain] = hift(mel[None], hift.source(f0, zero.double(), torch.tensor([5]), zero))
    sound = whole(renderer, hift, mel)
    assert torch.equal(sound[TRIM:], plain[TRIM:])
    assert not sound[: TRIM // 2].any()
    rise = (1 - torch.cos(torch.linspace(0, torch.pi, TRIM // 2))) / 2
    torch.testing.assert_close(sound[TRIM // 2 : TRIM], plain[TRIM // 2 : TRIM] * rise, rtol=0, atol=1e-6)


def test_only_the_beginning_is_trimmed(renderer: Renderer, hift: Hift) -> None:
    """Later parts begin at full loudness."""
    first, *later = rendered(renderer, parts_of(hift, a_mel(), SIZES["as streamed"], CONTEXT))
    assert not first[: TRIM // 2].any()
    assert first[TRIM:].std() > 0.02
    for part in later:
        assert part[: TRIM // 2].std() > 0.01


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_shortest_streams(renderer: Renderer, hift: Hift, frames: int) -> None:
    """Are trimmed as far as they go, and keep their length."""
    sound = whole(renderer, hift, a_mel(frames=frames))
    assert sound.shape == (SAMPLES_PER_FRAME * frames,)
    assert sound.isfinite().all()
    assert not sound[: TRIM // 2].any()
    assert bool(sound.any()) == (frames > 1)


def changed_parts(renderer: Renderer, hift: Hift, *, plain: bool) -> tuple[Tensor, SoundState, Tensor]:
    """A part, the state behind it, and a next one of other mel frames than foreseen; `plain` forgets what was."""
    state = SoundState(hift)
    [before] = renderer.render([Part(state, a_mel(0)[: 30 + PROVISIONAL], 0, 30, 5)])
    found = copy(state)
    if plain:
        state.foreseen = None
    [after] = renderer.render([Part(state, a_mel(1)[30:], 30, FRAMES - 30, 5)])
    return before, found, after


def test_crossfade(renderer: Renderer, hift: Hift) -> None:
    """A part takes over within 20 ms from what the one before it had foreseen, sample by sample."""
    _, state, faded = changed_parts(renderer, hift, plain=False)
    _, _, plain = changed_parts(renderer, hift, plain=True)
    assert state.foreseen is not None
    [foreseen] = renderer.render([Part(SoundState(hift), a_mel(0)[: 30 + PROVISIONAL], 0, 30 + PROVISIONAL, 5)])
    foreseen = foreseen[30 * SAMPLES_PER_FRAME :][:SAMPLES_PER_FRAME]
    assert largest(state.foreseen, foreseen) < 1e-6
    share = (torch.arange(SAMPLES_PER_FRAME) + 0.5) / SAMPLES_PER_FRAME
    expected = (1 - share) * foreseen + share * plain[:SAMPLES_PER_FRAME]
    assert largest(faded[:SAMPLES_PER_FRAME], expected) < 1e-6
    assert torch.equal(faded[SAMPLES_PER_FRAME:], plain[SAMPLES_PER_FRAME:])
    assert largest(foreseen, plain[:SAMPLES_PER_FRAME]) > 0.05


def test_joins_are_like_the_inside(renderer: Renderer, hift: Hift) -> None:
    """Where every part has other frames than were foreseen, the steps at the joins are within the inside's own."""
    # With random weights the sound is nearly noise, in which few clicks would show: the test above is the sharp one.
    state, parts, first = SoundState(hift), [], 0
    for number in range(10):
        mel = a_mel(number)[first : first + 5 + PROVISIONAL]
        parts += renderer.render([Part(state, mel, first, 5, 5)])
        first += 5
    joins = torch.stack([after[0] - before[-1] for before, after in pairwise(parts)]).abs()
    inside = torch.cat([part[SAMPLES_PER_FRAME:].diff().abs() for part in parts[1:]])
    assert joins.max() < inside.quantile(0.999)
    assert joins.median() < inside.quantile(0.8)


def test_streams_together_are_alone(renderer: Renderer, hift: Hift) -> None:
    """Parts of several streams, some of one shape and some not, give what each stream would give by itself."""
    mels = [a_mel(seed) for seed in range(4)]
    sizes = [(16, 24, 20), (16, 24, 20), (16, 14, 30), (16, 24, 20)]
    streams = [
        parts_of(hift, mel, size, PROVISIONAL, seed) for seed, (mel, size) in enumerate(zip(mels, sizes, strict=True))
    ]
    together = [renderer.render(parts) for parts in zip(*streams, strict=True)]
    for seed, (mel, size) in enumerate(zip(mels, sizes, strict=True)):
        alone = rendered(renderer, parts_of(hift, mel, size, PROVISIONAL, seed))
        for ours, expected in zip([sounds[seed] for sounds in together], alone, strict=True):
            assert largest(ours, expected) < 1e-3
    assert largest(together[1][0], together[1][1]) > 0.05


def test_rendering_one_stream_leaves_the_others(renderer: Renderer, hift: Hift) -> None:
    """States hold tensors of their own, which another stream's parts do not change and nothing else keeps alive."""
    states = [SoundState(hift), SoundState(hift)]
    renderer.render([Part(state, a_mel(n)[:40], 0, 32, n) for n, state in enumerate(states)])
    fields = ("mel", "f0", "turns", "sound", "foreseen")
    before = {name: getattr(states[0], name).clone() for name in fields}
    renderer.render([Part(states[1], a_mel(1)[32:], 32, 20, 1)])
    for name in fields:
        held = getattr(states[0], name)
        assert torch.equal(held, before[name])
        assert held.untyped_storage().nbytes() == held.nbytes


def test_a_state_does_not_grow(renderer: Renderer, hift: Hift) -> None:
    """However long a stream gets, it remembers the context of one part."""
    parts = list(parts_of(hift, a_mel(frames=120), (30,) * 4, PROVISIONAL))
    for part in parts[:-1]:
        renderer.render([part])
        assert len(part.state.mel) == len(part.state.f0) == CONTEXT
        assert len(part.state.sound) == WATERMARK_CONTEXT
        assert part.state.foreseen is not None
        assert 0 <= part.state.turns < 1
    renderer.render(parts[-1:])
    assert parts[-1].state.foreseen is None


def test_watermarked_parts_are_the_whole(renderer: Renderer, hift: Hift) -> None:
    """Marking part by part, with full context, is marking the whole, and the mark is what the watermarker adds."""
    marker = Watermarker(torch.device("cpu"))
    mel = a_mel()
    marked = torch.cat(rendered(Renderer(hift, marker), parts_of(hift, mel, SIZES["as streamed"], CONTEXT)))
    plain = torch.cat(rendered(renderer, parts_of(hift, mel, SIZES["as streamed"], CONTEXT)))
    assert largest(marked, marker.apply(plain[None])[0]) < 1e-4
    assert 1e-3 < largest(marked, plain) < 0.1
