"""Sentences found while they are written."""

from __future__ import annotations

import time

import pytest

from workers.sentences import SentenceBuffer


def written(pieces: list[str], language: str = "en") -> list[str]:
    buffer = SentenceBuffer(language)
    return [sentence.strip() for piece in pieces for sentence in buffer.add(piece)] + [
        sentence.strip() for sentence in buffer.flush()
    ]


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["He came on Jan. 5.", '"Why?" she asked.', "He left."]),
        ("en", ["She asked.", '"No!" he said.', "Then he left."]),
        ("en-GB", ["Dr. Smith said 'Go.'", "Then he left."]),
        ("de", ["Sie kam.", "„Warum?“", "Er ging."]),
        ("fr", ["Il vint.", "« Pourquoi ? » dit-elle.", "Il partit."]),
        ("zh", ["他来了。", "“为什么？”", "她问。"]),
    ],
)
def test_letter_by_letter_is_as_well_as_whole(language: str, sentences: list[str]) -> None:
    """A quotation keeps its first mark, which is written before anything tells it from a last one."""
    text = ("" if language == "zh" else " ").join(sentences)
    assert written(list(text), language) == sentences
    assert written([text], language) == sentences


def test_words_stay_apart_where_a_long_sentence_is_cut() -> None:
    """Whatever pieces it comes in, no word is lost and none is joined to its neighbour."""
    words = [f"word{number}" for number in range(200)]
    for pieces in ([f"{word} " for word in words], [f" {word}" for word in words], list(" ".join(words))):
        spoken = written(pieces)
        assert " ".join(spoken).split() == words
        assert max(map(len, spoken)) <= 300


@pytest.mark.parametrize(("first", "spaces"), [("", 10_000), ("word", 1_000)])
def test_white_space_is_not_piled_up(first: str, spaces: int) -> None:
    """Nor does it take longer the more there was."""
    buffer = SentenceBuffer("en")
    buffer.add(first)
    began_at = time.monotonic()
    for _ in range(600):
        assert buffer.add(" " * spaces) == []
        assert len(buffer) <= 10
    assert time.monotonic() - began_at < 1
    assert buffer.add("next. Then") == [f"{first} next. ".lstrip()]


def test_many_sentences_at_once_take_a_moment() -> None:
    """Where there are no spaces between them, too."""
    began_at = time.monotonic()
    assert len(SentenceBuffer("zh").add("他来了。" * 2500)) == 2499
    assert time.monotonic() - began_at < 0.15
