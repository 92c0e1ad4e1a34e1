"""Where a stream of tokens is cut, without a model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.engine.chatterbox.hops import (
    FIRST_HOPS,
    FRAMES_PER_TOKEN,
    LATER_HOPS,
    LOOKAHEAD,
    PROVISIONAL,
    Hop,
    HopPlan,
)

SMALLEST = PROVISIONAL // FRAMES_PER_TOKEN + 1
"""Tokens that a hop must have to leave a final frame."""

sizes = st.sampled_from([FIRST_HOPS, LATER_HOPS]) | st.lists(st.integers(SMALLEST, 60), max_size=4).map(tuple)
windows = st.integers(0, 400)


def laid(plan: HopPlan, arrivals: Iterable[int], *, told_late: bool = False) -> list[tuple[Hop, int]]:
    """Each hop with the number of tokens that were there when it was taken, asked for after every arrival.

    With `told_late` the end is known only some time after the last token.
    """
    found: list[tuple[Hop, int]] = []
    arrivals = list(arrivals)
    total, tokens = sum(arrivals), 0
    for arrival in [*arrivals, *([0] if told_late else [])]:
        ended = tokens == total if told_late else tokens + arrival == total
        tokens += arrival
        while (hop := plan.next(tokens, ended=ended)) is not None:
            plan.take(hop)
            found.append((hop, tokens))
            if hop.last:
                return found
    return found


@given(sizes, windows, st.lists(st.integers(1, 50), min_size=1, max_size=30), st.booleans())
def test_places_do_not_depend_on_when_they_are_asked_for(
    hops: tuple[int, ...], window: int, arrivals: list[int], told_late: bool
) -> None:
    """However the tokens come, the hops are those of a stream that is there at once."""
    in_time = laid(HopPlan(hops, window=window), arrivals, told_late=told_late)
    at_once = laid(HopPlan(hops, window=window), [sum(arrivals)])
    assert [hop for hop, _ in in_time] == [hop for hop, _ in at_once]


@given(sizes, windows, st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_every_frame_once(hops: tuple[int, ...], window: int, arrivals: list[int]) -> None:
    """Final frames follow each other without gaps from 0 to twice the tokens, and only the end is the last hop."""
    found = [hop for hop, _ in laid(HopPlan(hops, window=window), arrivals)]
    assert found[0].first_frame == 0
    assert all(hop.end_frame > hop.first_frame for hop in found)
    assert all(one.end_frame == other.first_frame for one, other in pairwise(found))
    assert found[-1].end_frame == FRAMES_PER_TOKEN * sum(arrivals)
    assert found[-1].fed == sum(arrivals)
    assert [hop.last for hop in found] == [False] * (len(found) - 1) + [True]


@given(sizes, windows, st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_what_a_hop_needs_is_there(hops: tuple[int, ...], window: int, arrivals: list[int]) -> None:
    """A hop has its lookahead and the token held back behind it unless it ends the stream, and its window before it."""
    for hop, tokens in laid(HopPlan(hops, window=window), arrivals):
        assert hop.context == max(0, hop.first_frame // FRAMES_PER_TOKEN - window)
        if hop.last:
            assert hop.fed == hop.stop == tokens
        else:
            assert hop.fed == hop.stop + LOOKAHEAD < tokens
            assert hop.end_frame == FRAMES_PER_TOKEN * hop.stop - PROVISIONAL


@given(sizes, windows, st.integers(1, 600))
def test_hops_have_the_sizes_asked_for(hops: tuple[int, ...], window: int, tokens: int) -> None:
    """Each is as long as it is told to be, the last size repeating, and the end is at most the lookahead longer."""
    found = [hop for hop, _ in laid(HopPlan(hops, window=window), [tokens])]
    taken = [stop - start for start, stop in pairwise([0, *[hop.stop for hop in found]])]
    expected = [hops[min(n, len(hops) - 1)] if hops else tokens for n in range(len(taken))]
    assert taken[:-1] == expected[:-1]
    assert 0 < taken[-1] <= expected[-1] + LOOKAHEAD


@given(windows, st.lists(st.integers(1, 50), min_size=1, max_size=30), st.booleans())
def test_without_sizes_the_stream_is_one_hop(window: int, arrivals: list[int], told_late: bool) -> None:
    """Nothing is made into sound before the end, and then everything."""
    tokens = sum(arrivals)
    [(hop, _)] = laid(HopPlan((), window=window), arrivals, told_late=told_late)
    assert hop == Hop(context=0, stop=tokens, first_frame=0, end_frame=2 * tokens, last=True)


def test_the_first_hop_waits_for_sixteen_tokens() -> None:
    """Twelve of its own, three of lookahead and one held back."""
    plan = HopPlan(FIRST_HOPS, window=50)
    assert plan.next(15, ended=False) is None
    first = plan.next(16, ended=False)
    assert first == Hop(context=0, stop=12, first_frame=0, end_frame=16, last=False)


@pytest.mark.parametrize("hops", [FIRST_HOPS, ()])
def test_asking_changes_nothing(hops: tuple[int, ...]) -> None:
    """Until it is taken, the same hop is given again."""
    plan = HopPlan(hops, window=50)
    assert plan.next(100, ended=True) == plan.next(100, ended=True)


def test_a_stream_without_tokens_has_no_hop() -> None:
    """Ended or not, there is nothing to make into sound."""
    assert HopPlan(FIRST_HOPS, window=50).next(0, ended=True) is None
    assert HopPlan((), window=50).next(0, ended=True) is None


def test_no_torch() -> None:
    """The plan works where torch cannot be imported."""
    code = "import sys; sys.modules['torch'] = None; import workers.engine.chatterbox.hops"
    subprocess.run([sys.executable, "-c", code], check=True)
