"""Long text cut into sentence-sized pieces."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import sentencex

_WINDOW = 2_000
"""Characters."""


def speakable(text: str) -> str:
    """`text` with control characters made into spaces; line breaks stay.

    Engines must never see control characters: espeak, for one, reads commands behind U+0001.
    """
    return "".join(" " if unicodedata.category(c) == "Cc" and c != "\n" else c for c in text)


def split(text: str, *, language: str, limit: int) -> list[str]:
    """Whole sentences of `text`, neighbours joined up to `limit` characters, in order.

    A sentence longer than `limit` is cut at white space, or within a word when it has none. The pieces hold every
    character of the text except white space at their ends.
    """
    pieces: list[str] = []
    for sentence in sentences(text, language):
        for part in _bounded(sentence, limit):
            if pieces and len(pieces[-1]) + len(part.rstrip()) <= limit:
                pieces[-1] += part
            else:
                pieces.append(part)
    return [stripped for piece in pieces if (stripped := piece.strip())]


def sentences(text: str, language: str) -> Iterator[str]:
    """The sentences of `text`, with every character of it; `language` is a tag.

    They are looked for in one window after another.

    sentencex takes quadratic time where it finds many boundaries (6 s for 100,000 characters of Chinese), so it never
    sees more than `_WINDOW`. The last sentence of a window may go on behind it: the next window begins with it.
    """
    primary, start = language.split("-", maxsplit=1)[0], 0
    while start < len(text):
        window = text[start : start + _WINDOW]
        found = sentencex.segment(primary, window)
        if start + len(window) < len(text):
            found = found[:-1] or found
        yield from found
        start += sum(map(len, found))


def _bounded(sentence: str, limit: int) -> list[str]:
    parts = []
    while len(sentence.rstrip()) > limit:
        space = max(sentence.rfind(" ", 0, limit), sentence.rfind("\n", 0, limit))
        end = space + 1 if space > 0 else limit
        parts.append(sentence[:end])
        sentence = sentence[end:]
    return [*parts, sentence]
