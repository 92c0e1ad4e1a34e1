"""How fast the engine's thread is said to go."""

from __future__ import annotations

import pytest

from tests.workers.engine.chatterbox.listening import Clock
from workers.engine.chatterbox import pace
from workers.engine.chatterbox.pace import Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, pace)


def test_pace_is_of_steps_one_after_the_other(clock: Clock) -> None:
    """The time in which there is nothing to decode is no step's, and one step alone has no pace."""
    measured = Pace()
    assert measured.steps_per_s is None
    for _ in range(3):
        for _ in range(5):
            measured.step(tokens=2, rows=4)
            clock.now += 0.1
        measured.pause()
        clock.now += 100
    assert measured.steps_per_s == pytest.approx(10)


def test_pace_is_the_newest_steps(clock: Clock) -> None:
    """A slow beginning is forgotten after 128 of them."""
    measured = Pace()
    for seconds, count in ((1.0, 50), (0.02, 129)):
        for _ in range(count):
            measured.step(tokens=1, rows=2)
            clock.now += seconds
    assert measured.steps_per_s == pytest.approx(50)


def test_steps_are_counted_with_what_they_gave(clock: Clock) -> None:
    """Tokens and rows add up; a step that only prefilled is none."""
    measured = Pace()
    for tokens, rows in ((0, 0), (1, 2), (3, 5)):
        measured.step(tokens=tokens, rows=rows)
        clock.now += 1
    assert (measured.steps, measured.tokens, measured.rows) == (2, 4, 7)


def test_silence_is_the_time_since_a_sign_of_life(clock: Clock) -> None:
    """It grows by the clock and ends with the next one."""
    measured = Pace()
    clock.now += 7
    assert measured.silent_s == 7
    measured.alive()
    assert measured.silent_s == 0
