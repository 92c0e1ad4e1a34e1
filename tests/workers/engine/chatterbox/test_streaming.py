"""Tokens made into sound while they come: lengths, joins, company, urgency, and the watermark at the end of it all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import perth
import pytest
import torch
from torch import Tensor

from fleet.contract import SAMPLE_RATE
from workers.engine.base import Quality, Samples
from workers.engine.chatterbox.conditionals import DevicePrompt, DeviceVoices, ReferencePrompt, VoiceConditionals
from workers.engine.chatterbox.hift import SAMPLES_PER_FRAME
from workers.engine.chatterbox.hops import FIRST_HOPS, LATER_HOPS, HopPlan
from workers.engine.chatterbox.rendering import Part, Renderer
from workers.engine.chatterbox.s3gen import FlowInput, S3Gen
from workers.engine.chatterbox.streams import Chunk, SpeechStream
from workers.engine.chatterbox.vocoder import Vocoder
from workers.engine.chatterbox.watermark import Watermarker

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES_PER_TOKEN = 2 * SAMPLES_PER_FRAME
PROMPT = 10
"""Tokens of a voice's prompt that are used."""


def tokens(count: int, seed: int = 0) -> list[int]:
    found: list[int] = torch.randint(0, 6561, (count,), generator=torch.Generator().manual_seed(seed)).tolist()
    return found


def another_voice(voice: VoiceConditionals) -> VoiceConditionals:
    """Says other things in another voice, in a prompt as long."""
    gen = voice.gen
    return VoiceConditionals.of(voice.t3, ReferencePrompt(gen.tokens.flip(0), gen.mel.flip(0), -gen.embedding))


def a_vocoder(s3gen: S3Gen, *, rows: int = 4, watermarker: Watermarker | None = None) -> Vocoder:
    voices = DeviceVoices(torch.device("cpu"), 2**30)
    return Vocoder(s3gen, Renderer(s3gen.hift, watermarker), voices, rows=rows, prompt_tokens=PROMPT)


def a_stream(
    voice: VoiceConditionals,
    name: str = "a",
    *,
    seed: int = 5,
    hops: tuple[int, ...] = FIRST_HOPS,
    window: int = 25,
    quality: Quality = "standard",
    deadline: float = 0.0,
    given: list[int] | None = None,
) -> SpeechStream:
    """With `given`, all of its tokens are there."""
    plan = HopPlan(hops, window=window)
    stream = SpeechStream(name, voice, seed, quality, plan, deadline)
    if given is not None:
        stream.tokens, stream.ended = list(given), True
    return stream


@dataclass
class Listener:
    """Hands streams their tokens bit by bit and hears what comes."""

    vocoder: Vocoder
    heard: dict[str, list[Samples]] = field(default_factory=lambda: defaultdict(list))
    ended: list[str] = field(default_factory=list)

    def hear(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            assert chunk.stream.id not in self.ended
            self.heard[chunk.stream.id].append(chunk.samples)
            if chunk.last:
                self.ended.append(chunk.stream.id)

    def speak(self, *streams: tuple[SpeechStream, list[int]], bit: int = 3) -> Mapping[str, list[Samples]]:
        """Everything that these streams have to say, a step for every few of their tokens."""
        for stream, _ in streams:
            self.vocoder.add(stream)
        for step in range(100_000):
            for stream, coming in streams:
                stream.tokens += coming[step * bit : (step + 1) * bit]
                stream.ended = len(stream.tokens) >= len(coming)
            self.hear(self.vocoder.step())
            if not self.vocoder.streams:
                break
        return self.heard

    def finish(self) -> Mapping[str, list[Samples]]:
        """What streams that have all of their tokens have left to say."""
        return self.speak()


def alone(s3gen: S3Gen, stream: SpeechStream) -> Samples:
    """What a stream that has all of its tokens says by itself."""
    listener = Listener(a_vocoder(s3gen))
    listener.vocoder.add(stream)
    return np.concatenate(listener.finish()[stream.id])


def assert_like_the_inside(parts: list[Samples]) -> None:
    """The steps at the joins are within the 99.9th percentile of those inside."""
    inside = np.concatenate([np.abs(np.diff(part[2 * SAMPLES_PER_FRAME :])) for part in parts])
    for before, after in pairwise(parts):
        assert abs(after[0] - before[-1]) < np.quantile(inside, 0.999)


@pytest.mark.parametrize("count", [1, 5, 16, 17, 40, 130, 260])
def test_lengths_and_joins(quick_s3gen: S3Gen, voice: VoiceConditionals, count: int) -> None:
    """A stream is as long as its tokens make it, 40 ms each, begins in silence and has no jumps at its joins."""
    parts = Listener(a_vocoder(quick_s3gen)).speak((a_stream(voice), tokens(count)))["a"]
    sound = np.concatenate(parts)
    assert len(sound) == SAMPLES_PER_TOKEN * count
    assert sound.dtype == np.float32
    assert np.isfinite(sound).all()
    assert not sound[: SAMPLE_RATE // 50].any()
    assert sound[SAMPLE_RATE // 50 :].std() > 0.005
    assert len(parts) == {1: 1, 5: 1, 16: 2, 17: 2, 40: 2, 130: 4, 260: 5}[count]
    assert_like_the_inside(parts)


def test_the_pace_of_tokens_does_not_matter(quick_s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Tokens one by one, in large bits or all at once: the same sound to the last bit."""
    coming = tokens(45)
    at_once = alone(quick_s3gen, a_stream(voice, given=coming))
    for bit in (1, 11):
        listener = Listener(a_vocoder(quick_s3gen))
        slowly = np.concatenate(listener.speak((a_stream(voice), coming), bit=bit)["a"])
        assert np.array_equal(slowly, at_once)
    assert not np.array_equal(at_once, alone(quick_s3gen, a_stream(voice, seed=6, given=coming)))


def test_the_first_hop_sounds_before_the_rest(quick_s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Sixteen tokens give 320 ms of sound however many are still to come, and the next hop needs its own."""
    vocoder = a_vocoder(quick_s3gen)
    listener = Listener(vocoder)
    stream = a_stream(voice)
    vocoder.add(stream)
    given = tokens(41)
    expected = {15: [], 16: [16], 40: [16], 41: [16, 50]}
    for count, frames in expected.items():
        stream.tokens += given[len(stream.tokens) : count]
        for _ in range(10):
            listener.hear(vocoder.step())
        assert [len(part) / SAMPLES_PER_FRAME for part in listener.heard["a"]] == frames
    assert vocoder.streams == 1


def test_a_paused_stream_begins_nothing(quick_s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Until it goes on, and then sounds as if it had never been paused."""
    given = tokens(20)
    stream = a_stream(voice, given=given)
    vocoder = a_vocoder(quick_s3gen)
    listener = Listener(vocoder)
    vocoder.add(stream)
    stream.paused = True
    for _ in range(5):
        assert vocoder.step() == []
    assert vocoder.counts.euler_steps == 0
    stream.paused = False
    heard = np.concatenate(listener.finish()["a"])
    assert np.array_equal(heard, alone(quick_s3gen, a_stream(voice, given=given)))


@pytest.mark.parametrize(("lengths", "encoded", "shared"), [((45, 45), 4, 6), ((45, 38), 4, 2), ((45, 45), 1, 3)])
def test_streams_of_two_voices_are_alone(
    quick_s3gen: S3Gen, voice: VoiceConditionals, lengths: tuple[int, int], encoded: int, shared: int
) -> None:
    """Interleaved, in shared steps where they are of one length, each is what it is by itself.

    Hops that are encoded together share both of their steps; one after the other, as on a CPU, the second of each.
    """
    other = another_voice(voice)
    first, second = tokens(lengths[0], 1), tokens(lengths[1], 2)
    vocoder = a_vocoder(quick_s3gen)
    vocoder._encoded_at_once = encoded
    heard = Listener(vocoder).speak(
        (a_stream(voice, "first", seed=1), first), (a_stream(other, "second", seed=2), second)
    )
    assert vocoder.counts.euler_rows - vocoder.counts.euler_steps >= shared
    for name, coming, seed, who in (("first", first, 1, voice), ("second", second, 2, other)):
        expected = alone(quick_s3gen, a_stream(who, seed=seed, given=coming))
        np.testing.assert_allclose(np.concatenate(heard[name]), expected, rtol=0, atol=1e-3)
    swapped = alone(quick_s3gen, a_stream(other, seed=1, given=first))
    assert np.abs(swapped - np.concatenate(heard["first"])).max() > 0.05


def test_many_streams_that_come_and_go(quick_s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Six streams of all lengths and qualities on two rows come out whole, and leave nothing behind."""
    vocoder = a_vocoder(quick_s3gen, rows=2)
    qualities: list[Quality] = ["draft", "standard", "high"]
    streams = [
        a_stream(voice, str(n), seed=n, quality=qualities[n % 3], hops=LATER_HOPS if n % 2 else FIRST_HOPS)
        for n in range(6)
    ]
    coming = [tokens(5 + 10 * n, n) for n in range(6)]
    heard = Listener(vocoder).speak(*zip(streams, coming, strict=True), bit=5)
    for n in range(6):
        assert sum(map(len, heard[str(n)])) == SAMPLES_PER_TOKEN * len(coming[n])
    expected = alone(quick_s3gen, a_stream(voice, seed=5, quality="high", hops=LATER_HOPS, given=coming[5]))
    np.testing.assert_allclose(np.concatenate(heard["5"]), expected, rtol=0, atol=1e-3)
    assert not vocoder._batches
    assert vocoder.counts.hops == sum(map(len, heard.values()))


@pytest.mark.parametrize(("quality", "steps"), [("draft", 1), ("standard", 2), ("high", 4)])
def test_hops_take_the_steps_of_their_quality(
    quick_s3gen: S3Gen, voice: VoiceConditionals, quality: Quality, steps: int
) -> None:
    """Half of the standard two, two, or twice as many, for each hop."""
    vocoder = a_vocoder(quick_s3gen)
    Listener(vocoder).speak((a_stream(voice, quality=quality), tokens(40)))
    assert vocoder.counts.hops == 2
    assert vocoder.counts.euler_steps == 2 * steps


def test_removing_a_stream_midway(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Frees its row at once, gives no more of its sound, and leaves what shared its steps as it would have been."""
    vocoder = a_vocoder(s3gen, rows=2)
    listener = Listener(vocoder)
    given = tokens(30, 1)
    staying, leaving = a_stream(voice, "stays", given=given), a_stream(voice, "leaves", given=tokens(30, 2))
    vocoder.add(staying)
    vocoder.add(leaving)
    for _ in range(4):
        listener.hear(vocoder.step())
    assert staying.work is not None
    assert leaving.work is not None
    batch: Any = leaving.work.batch
    assert staying.work.batch is batch
    free = batch.free
    vocoder.remove(leaving)
    assert batch.free == free + 1
    assert vocoder.streams == 1
    batch._x[batch._free] = torch.nan
    vocoder.remove(leaving)
    heard = listener.finish()
    assert list(heard) == ["stays"]
    np.testing.assert_allclose(
        np.concatenate(heard["stays"]), alone(s3gen, a_stream(voice, given=given)), rtol=0, atol=1e-3
    )


def test_aborting_takes_what_was_under_way(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Streams with a hop begun are forgotten and named; one that waits for tokens goes on and is whole."""
    vocoder = a_vocoder(s3gen)
    given = tokens(20)
    begun, waiting = a_stream(voice, "begun", given=given), a_stream(voice, "waiting")
    vocoder.add(begun)
    vocoder.add(waiting)
    vocoder.step()
    assert vocoder.abort() == [begun]
    assert not vocoder._batches
    waiting.tokens, waiting.ended = list(given), True
    heard = Listener(vocoder).finish()
    assert list(heard) == ["waiting"]
    assert np.array_equal(np.concatenate(heard["waiting"]), alone(s3gen, a_stream(voice, given=given)))


def test_the_most_urgent_goes_first(quick_s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """With one row, whoever runs out of sound sooner is heard to the end first, whoever came first."""
    vocoder = a_vocoder(quick_s3gen, rows=1)
    for name, deadline in (("late", 9.0), ("soon", 3.0), ("middle", 6.0)):
        vocoder.add(a_stream(voice, name, deadline=deadline, given=tokens(30)))
    listener = Listener(vocoder)
    listener.finish()
    assert listener.ended == ["soon", "middle", "late"]


def test_urgency_may_change(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """A stream that comes later, and one whose deadline moves, overtake a hop that is half done."""
    vocoder = a_vocoder(s3gen, rows=1)
    streams = {name: a_stream(voice, name, deadline=5.0, given=tokens(14)) for name in ("first", "second")}
    vocoder.add(streams["first"])
    for _ in range(4):
        vocoder.step()
    vocoder.add(streams["second"])
    streams["second"].deadline = 1.0
    listener = Listener(vocoder)
    listener.finish()
    assert listener.ended == ["second", "first"]


class Recording(Renderer):
    """A renderer that keeps the mel frames it is given."""

    def __init__(self, s3gen: S3Gen) -> None:
        super().__init__(s3gen.hift, None)
        self.parts: list[Part] = []

    def render(self, parts: Sequence[Part]) -> list[Tensor]:
        self.parts += parts
        return super().render(parts)


def recorded(s3gen: S3Gen, voice: VoiceConditionals, given: list[int], window: int) -> list[Part]:
    renderer = Recording(s3gen)
    vocoder = Vocoder(s3gen, renderer, DeviceVoices(torch.device("cpu"), 2**30), rows=1, prompt_tokens=PROMPT)
    Listener(vocoder).speak((a_stream(voice, window=window), given))
    return renderer.parts


def test_the_last_hop_is_offline(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """With all that came before as its context, the last hop's mel frames are those of the whole text made at once."""
    given = tokens(60)
    short = voice.gen.shortened(PROMPT)
    prompt = DevicePrompt(short.tokens, short.mel, short.embedding)
    [whole] = s3gen.mel([FlowInput(prompt, given, 0, last=True, seed=5)])
    last = recorded(s3gen, voice, given, window=10_000)[-1]
    assert last.first == 2 * (12 + 25) - 8
    torch.testing.assert_close(last.mel, whole[last.first :], rtol=0, atol=1e-3)
    bounded = recorded(s3gen, voice, given, window=10)[-1]
    assert (bounded.mel - whole[last.first :]).abs().max() > 1e-3


def test_every_frame_is_of_its_own_tokens(s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """Each hop's frames are those that S3Gen makes of its tokens at their place, and follow the ones before."""
    given = tokens(90)
    short = voice.gen.shortened(PROMPT)
    prompt = DevicePrompt(short.tokens, short.mel, short.embedding)
    parts = recorded(s3gen, voice, given, window=10)
    # Hops of 12, 25 and the rest; the first frame of each is 8 before its tokens, its context 10 tokens before that.
    places = [(0, 15, 0), (0, 40, 16), (23, 90, 66)]
    assert [part.first for part in parts] == [first for *_, first in places]
    for part, (context, fed, first) in zip(parts, places, strict=True):
        flow = FlowInput(prompt, given[context:fed], context, last=fed == 90, seed=5)
        [mel] = s3gen.mel([flow])
        torch.testing.assert_close(part.mel, mel[first - 2 * context :], rtol=0, atol=1e-4)


def test_the_watermark_is_found(quick_s3gen: S3Gen, voice: VoiceConditionals) -> None:
    """PerTh's own detector is sure of a streamed result, and of the absence of a mark without it."""
    detector: Any = perth.PerthImplicitWatermarker()
    coming = tokens(100)
    found = {}
    for marker in (None, Watermarker(torch.device("cpu"))):
        vocoder = a_vocoder(quick_s3gen, watermarker=marker)
        sound = np.concatenate(Listener(vocoder).speak((a_stream(voice), coming))["a"])
        assert len(sound) == SAMPLES_PER_TOKEN * 100
        with torch.inference_mode():
            found[marker is not None] = detector.get_watermark(sound, sample_rate=SAMPLE_RATE, round=False)
    assert found[True] > 0.99
    assert found[False] < 0.1
