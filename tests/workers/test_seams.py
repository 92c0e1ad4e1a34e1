"""Ends and joins of speech, on sound that is known to the sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.contract import SAMPLE_RATE
from workers.engine.base import Samples
from workers.seams import Seams

MS = SAMPLE_RATE // 1000


def tone(ms: int, level: float = 0.5) -> Samples:
    return (level * np.cos(np.arange(ms * MS) * 2 * np.pi * 200 / SAMPLE_RATE)).astype(np.float32)


def quiet(ms: int, level: float = 0.0) -> Samples:
    return (level * np.random.default_rng(1).standard_normal(ms * MS)).astype(np.float32)


def through(*pieces: Samples) -> Samples:
    seams = Seams()
    return np.concatenate([*(seams.add(piece) for piece in pieces), seams.finish()])


@pytest.mark.parametrize("noise", [0.0, 0.0009, 0.002])
def test_silence_and_noise_at_the_ends_are_trimmed(noise: float) -> None:
    """50 ms stay before the sound and 100 ms behind it, and both edges are silent."""
    heard = through(quiet(400, noise), tone(500), quiet(900, noise))
    assert len(heard) / MS == pytest.approx(650, abs=20)
    assert abs(heard[0]) < 1e-4
    assert abs(heard[-1]) < 1e-4


def test_sound_at_the_very_edge_does_not_click() -> None:
    """It rises and falls within milliseconds."""
    heard = through(tone(300))
    steps = np.abs(np.diff(heard, prepend=0, append=0))
    assert steps.max() < 0.05
    assert abs(heard[len(heard) // 2 :][: 50 * MS]).max() > 0.45


def test_rests_between_words_stay() -> None:
    """Silence that sound follows is part of the speech."""
    speech = np.concatenate([tone(200), quiet(700), tone(200)])
    assert len(through(speech)) / MS == pytest.approx(1100, abs=1)


def test_pause_is_as_long_as_it_was_asked_for() -> None:
    """To the sample, whatever quiet was around it."""
    seams = Seams()
    parts = [
        seams.add(np.concatenate([tone(300), quiet(500)])),
        np.concatenate([seams.finish(), quiet(500)]),
        seams.add(quiet(300)),
        seams.add(tone(300)),
        seams.finish(),
    ]
    heard = np.concatenate(parts)
    loud = np.flatnonzero(np.abs(heard) > 0.01)
    gap = np.diff(loud).max() / MS
    assert gap == pytest.approx(500 + 100 + 50, abs=10)


def test_long_rest_is_not_held_for_ever() -> None:
    """More than three seconds of quiet are passed on while they come."""
    seams = Seams()
    passed = len(seams.add(tone(100))) + sum(len(seams.add(quiet(100))) for _ in range(80))
    assert passed / MS == pytest.approx(100 + 5000, abs=120)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), max_size=8), st.integers(1, 2000))
def test_pieces_make_no_difference(parts: list[tuple[int, bool]], size: int) -> None:
    """However the sound is cut up, the same is heard, and never more than there was."""
    sound = np.concatenate([np.zeros(0, np.float32), *(tone(ms) if loud else quiet(ms) for ms, loud in parts)])
    whole = through(sound)
    cut = through(*(sound[start : start + size] for start in range(0, len(sound), size)))
    assert len(whole) <= len(sound)
    np.testing.assert_array_equal(whole, cut)
