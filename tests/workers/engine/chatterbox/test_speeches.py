"""A job's segments: how its text is cut, which are decoded when, and how their sound becomes one."""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.contract import SAMPLE_RATE
from tests.workers.engine.chatterbox.listening import Clock, Listener, joined, new_job
from workers.engine.base import Pause, Samples, Sound
from workers.engine.chatterbox import speeches
from workers.engine.chatterbox.speeches import (
    BUFFER_LIMIT,
    SEGMENT_CHARS,
    SEGMENTS_AT_ONCE,
    Segment,
    Speech,
    segments_of,
)
from workers.engine.pauses import PARAGRAPH_PAUSE_S, SENTENCE_PAUSE_S

SENTENCE = "This sentence has so many words" + " and more" * 25 + ". "
"""Too long to share a segment."""
SENTENCE_PAUSE, PARAGRAPH_PAUSE = round(SENTENCE_PAUSE_S * SAMPLE_RATE), round(PARAGRAPH_PAUSE_S * SAMPLE_RATE)


def speech(*pauses: float) -> tuple[Speech, Listener]:
    """One segment for each pause that follows it."""
    listener = Listener()
    segments = [Segment(f"Segment {n}.", pause) for n, pause in enumerate(pauses)]
    return Speech("name", new_job(), cast(Any, None), segments, listener, seed=0), listener


def begin(one: Speech, place: int) -> None:
    """As if it were being decoded."""
    one.segments[place].stream = cast(Any, object())


def sound(value: float, seconds: float = 0.1) -> Samples:
    return np.full(round(seconds * SAMPLE_RATE), value, np.float32)


def test_pauses_follow_the_text() -> None:
    """Short between sentences, longer between paragraphs, none at the end."""
    one = SENTENCE.strip()
    pauses = [segment.pause_s for segment in segments_of(f"{one} {one}\n\n{one} {one}", language="en")]
    assert pauses == [SENTENCE_PAUSE_S, PARAGRAPH_PAUSE_S, SENTENCE_PAUSE_S, 0]


@given(
    pieces=st.lists(
        st.sampled_from([SENTENCE, "Dr. No? ", "a" * 400, " \n ", "\n\n", "你好。", "…", "\u00a0", "\u2028", "x "]),
        max_size=20,
    )
    | st.lists(st.text(max_size=50), max_size=5)
)
def test_segments_are_the_text(pieces: list[str]) -> None:
    """Every character but white space, in order, none too long; only the last has no pause behind it."""
    text = "".join(pieces)
    segments = segments_of(text, language="en")
    assert "".join("".join(segment.text for segment in segments).split()) == "".join(text.split())
    assert all(0 < len(segment.text) <= SEGMENT_CHARS for segment in segments)
    assert all(segment.pause_s > 0 for segment in segments[:-1])
    assert all(segment.pause_s == 0 for segment in segments[-1:])


def test_segments_are_begun_in_order_and_few_at_once() -> None:
    """The next one when an earlier one is done, not before."""
    one, _ = speech(*[SENTENCE_PAUSE_S] * (SEGMENTS_AT_ONCE + 2))
    for expected in range(SEGMENTS_AT_ONCE):
        assert one.next_to_begin() == expected
        begin(one, expected)
    assert one.next_to_begin() is None
    one.receive(2, sound(0.2), last=True)
    assert one.next_to_begin() == SEGMENTS_AT_ONCE


def test_nothing_is_begun_for_who_does_not_read() -> None:
    """While more waits for him than may."""
    one, listener = speech(SENTENCE_PAUSE_S, 0)
    listener.buffered = BUFFER_LIMIT
    assert (one.reader_behind, one.next_to_begin()) == (False, 0)
    listener.buffered += 1
    assert (one.reader_behind, one.next_to_begin()) == (True, None)


def test_sound_is_delivered_in_order_whenever_it_comes() -> None:
    """A later segment's sound waits for the earlier ones, and comes as soon as they are complete."""
    one, listener = speech(SENTENCE_PAUSE_S, PARAGRAPH_PAUSE_S, 0)
    one.receive(2, sound(0.3), last=True)
    one.receive(1, sound(0.2), last=False)
    assert listener.pieces == []
    one.receive(0, sound(0.1), last=False)
    assert len(listener.pieces) == 1
    one.receive(0, sound(0.1), last=True)
    assert len(listener.pieces) == 4
    one.receive(1, sound(0.2), last=True)
    assert one.over
    heard = joined(listener.pieces)
    expected = [(0.1, 0.2), (0, SENTENCE_PAUSE_S), (0.2, 0.2), (0, PARAGRAPH_PAUSE_S), (0.3, 0.1)]
    plain = np.concatenate([sound(value, seconds) for value, seconds in expected])
    differing = np.flatnonzero(heard != plain)
    assert len(heard) == len(plain)
    faded = {int(place) // (SAMPLE_RATE // 100) for place in differing}
    assert faded == {19, 19 + 20 + 20}  # the last 10 ms of both segments that a pause follows
    assert (np.abs(heard) <= np.abs(plain)).all()


def test_segment_without_sound_leaves_the_longer_pause() -> None:
    """Of those on its two sides; before the first sound and behind the last there is none."""
    for pauses in ((PARAGRAPH_PAUSE_S, SENTENCE_PAUSE_S), (SENTENCE_PAUSE_S, PARAGRAPH_PAUSE_S)):
        one, listener = speech(SENTENCE_PAUSE_S, *pauses, SENTENCE_PAUSE_S, 0)
        one.receive(0, sound(0)[:0], last=True)
        one.receive(1, sound(0.1), last=True)
        one.receive(2, sound(0)[:0], last=True)
        one.receive(3, sound(0.1), last=True)
        one.receive(4, sound(0)[:0], last=True)
        assert one.over
        assert len(joined(listener.pieces)) == 2 * len(sound(0)) + PARAGRAPH_PAUSE


@pytest.mark.parametrize("pauses", [(0, SENTENCE_PAUSE_S, 0), (SENTENCE_PAUSE_S, 0, 0)])
@pytest.mark.parametrize("silent", [None, 0, 1])
def test_every_end_is_told_before_what_follows_it_sounds(pauses: tuple[float, ...], silent: int | None) -> None:
    """Also that of a segment without a pause behind it, and of one without sound."""
    put = list[Sound]()

    class Kept(Listener):
        def put(self, sound: Sound) -> None:
            put.append(sound)

    one, _ = speech(*pauses)
    one.sink = Kept()
    for place in range(3):
        one.receive(place, sound(place + 1)[: 0 if place == silent else None], last=True)
    over, before = 0, dict[int, int]()
    for each in put:
        if isinstance(each, Pause):
            over = each.done
        else:
            before[round(float(each.max())) - 1] = over
    assert before == {place: place for place in range(3) if place != silent}


def test_a_job_without_sound_has_not_sounded() -> None:
    """It is over, and nothing was put."""
    one, listener = speech(SENTENCE_PAUSE_S, 0)
    for place in range(2):
        one.receive(place, sound(0)[:0], last=True)
    assert (one.over, one.sounded, listener.pieces) == (True, False, [])


def test_who_runs_out_of_sound_first_is_served_first() -> None:
    """A job that has given no sound before one that has, and a job's own segments in their order."""
    silent, _ = speech(SENTENCE_PAUSE_S, SENTENCE_PAUSE_S, 0)
    heard, _ = speech(SENTENCE_PAUSE_S, SENTENCE_PAUSE_S, 0)
    heard.receive(0, sound(0.1, seconds=1), last=False)
    for when in (Speech.due, Speech.deadline):
        moments = [when(silent, place) for place in range(3)]
        assert moments == sorted(moments)
        assert moments[0] < when(heard, 0) < when(heard, 1) < when(heard, 2)
        assert when(heard, 0) == pytest.approx(time.monotonic() + 1, abs=0.2)


def test_segment_behind_is_wanted_sooner_when_its_turn_comes() -> None:
    """What was two segments away is next once those before it are complete, but not before their sound is heard."""
    one, _ = speech(SENTENCE_PAUSE_S, SENTENCE_PAUSE_S, 0)
    before = one.due(2)
    for place in range(2):
        one.receive(place, sound(0.1), last=True)
    assert one.due(2) < before
    assert one.due(2) == one.deadline(2) == one.heard_until > time.monotonic()


def test_sound_that_comes_too_late_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """When all sound before it could have been heard by then; the first is never late."""
    clock = Clock(monkeypatch, speeches)
    one, _ = speech(SENTENCE_PAUSE_S, 0)
    one.receive(0, sound(0.1, seconds=1), last=False)
    clock.now += 0.9
    one.receive(0, sound(0.1, seconds=1), last=False)
    assert one.late == 0
    clock.now += 1.2
    one.receive(0, sound(0.1, seconds=1), last=True)
    assert one.late == 1
    assert one.heard_until == pytest.approx(clock.now + 1)
