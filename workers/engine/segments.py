"""Long text cut into sentence-sized pieces."""

from __future__ import annotations

import unicodedata

import sentencex


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
    for sentence in sentencex.segment(language.split("-", maxsplit=1)[0], text):
        for part in _bounded(sentence, limit):
            if pieces and len(pieces[-1]) + len(part) <= limit:
                pieces[-1] += part
            else:
                pieces.append(part)
    return [stripped for piece in pieces if (stripped := piece.strip())]


def _bounded(sentence: str, limit: int) -> list[str]:
    parts = []
    while len(sentence) > limit:
        space = max(sentence.rfind(" ", 0, limit), sentence.rfind("\n", 0, limit))
        end = space + 1 if space > 0 else limit
        parts.append(sentence[:end])
        sentence = sentence[end:]
    return [*parts, sentence]
