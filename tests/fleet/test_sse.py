"""Server-sent events cut between them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fleet.sse import WholeEvents, event


@given(cuts=st.lists(st.integers(0, 200), max_size=8), count=st.integers(1, 6))
def test_only_whole_events_are_passed_on_and_nothing_is_lost(cuts: list[int], count: int) -> None:
    """However the stream comes in pieces."""
    stream = b"".join(event("delta", "x" * n) for n in range(count))
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    whole, passed = WholeEvents(), b""
    for start, end in pairwise(places):
        passed += whole.add(stream[start:end])
        assert passed.endswith(b"\n\n") or not passed
    assert passed + whole.rest() == stream


def test_event_without_an_end_does_not_fill_the_memory() -> None:
    """It is passed on as it comes."""
    whole = WholeEvents()
    sent = sum(len(whole.add(b"x" * 2**20)) for _ in range(8))
    assert sent >= 4 * 2**20
    assert sent + len(whole.rest()) == 8 * 2**20
