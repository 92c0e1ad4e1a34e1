"""Long text cut into pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from workers.engine.segments import speakable, split


def test_sentences_stay_whole_and_are_joined_up_to_the_limit() -> None:
    """Short sentences share a piece; one that would pass the limit begins the next."""
    text = "One two three. Four five six. Seven eight nine."
    assert split(text, language="en", limit=30) == ["One two three. Four five six.", "Seven eight nine."]


def test_abbreviation_does_not_end_a_sentence() -> None:
    """The cut follows the language, not the full stop."""
    assert split("Dr. Smith went home. He slept.", language="en-us", limit=20)[0] == "Dr. Smith went home."


@given(text=st.text(max_size=2000), limit=st.integers(1, 200))
def test_nothing_is_lost_and_no_piece_is_too_long(text: str, limit: int) -> None:
    """The pieces hold every character but white space, in order, each within the limit."""
    pieces = split(text, language="en", limit=limit)
    assert all(0 < len(piece) <= limit for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


@given(
    pieces=st.lists(st.sampled_from(["你好。", "Hello there. ", "word ", "a", "\n\n", '"(', "…", "? "]), max_size=3000)
)
def test_windows_do_not_show(pieces: list[str]) -> None:
    """A text of many windows is cut as one of a single window is, and nothing is lost between two."""
    text = "".join(pieces)
    found = "".join("".join(split(text, language="en", limit=100)).split())
    assert found == "".join(text.split())


def test_sentence_across_two_windows_stays_whole() -> None:
    """A window's end is not a sentence's end."""
    text = "Short one here. " * 124 + "This sentence begins in one window and ends in another. " + "And so on. " * 50
    assert "This sentence begins in one window and ends in another." in " ".join(split(text, language="en", limit=60))
    assert "This sentence begins in one window and ends in another." in split(text, language="en", limit=60)


@given(text=st.text(max_size=200))
def test_control_characters_never_reach_an_engine(text: str) -> None:
    """Only the line break survives, and the length stays."""
    cleaned = speakable(text)
    assert len(cleaned) == len(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in cleaned.replace("\n", ""))
