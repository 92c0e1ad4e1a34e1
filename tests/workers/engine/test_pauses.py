"""The pauses that a text asks for."""

from __future__ import annotations

import time

import pytest

from fleet.errors import InvalidValue
from workers.engine.pauses import PARAGRAPH_PAUSE_S, Passage, check_pauses, passages


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One.", [("One.", 0)]),
        ("One. [pause 0.5s] Two.", [("One.", 0.5), ("Two.", 0)]),
        ("One [PAUSE: 250ms] two", [("One", 0.25), ("two", 0)]),
        ("One[pause 2]two", [("One", 2), ("two", 0)]),
        ("[pause 1s] One. [pause 1.5 s]", [("", 1), ("One.", 1.5)]),
        ("A.[pause 1s][pause 2s]B.", [("A.", 1), ("", 2), ("B.", 0)]),
        ("A.\n\nB.\n \nC.\nD.", [("A.", PARAGRAPH_PAUSE_S), ("B.", PARAGRAPH_PAUSE_S), ("C.\nD.", 0)]),
        ("A.\n\n[pause 3s]\n\nB.", [("A.", 3), ("B.", 0)]),
        ("[pause] [pause -1s] [pauses 3s]", [("[pause] [pause -1s] [pauses 3s]", 0)]),
        ("[pause 1s]", [("", 1)]),
    ],
)
def test_passages(text: str, expected: list[tuple[str, float]]) -> None:
    """Marks and paragraphs cut a text; what only looks like a mark is text."""
    assert passages(text) == [Passage(*pair) for pair in expected]


@pytest.mark.parametrize(
    "text", ["[pause 11s]", "a [pause 10001ms]", "[pause 10s]" * 7, "[pause 999999999s]", f"[pause {'9' * 999}ms]"]
)
def test_too_long_pauses_are_refused(text: str) -> None:
    """Naming the field of the text."""
    with pytest.raises(InvalidValue) as raised:
        check_pauses(text, "input")
    assert raised.value.param == "input"


@pytest.mark.parametrize("text", ["[pause 1" + " " * 50_000, "[pause " + "1" * 50_000, "[pause 1." + "1" * 50_000])
def test_marks_without_an_end_are_text(text: str) -> None:
    """However long, they are found to be none in a moment."""
    began_at = time.monotonic()
    assert passages(text) == [Passage(text.strip(), 0)]
    assert time.monotonic() - began_at < 0.5
