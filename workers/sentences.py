"""Text as it is written, a few characters at a time, made into sentences as soon as each is complete."""

from __future__ import annotations

import sentencex

from workers.engine.segments import split

_LONGEST = 300
"""Characters without the end of a sentence after which what is there is spoken up to a space."""


class SentenceBuffer:
    """Holds what has been written and not yet said; `language` is a tag."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._text = ""

    def add(self, text: str) -> list[str]:
        """The sentences that are complete now: another one has begun behind them, or a new line."""
        self._text += text
        *complete, last = sentencex.segment(self._language.split("-", maxsplit=1)[0], self._text) or [""]
        if last.endswith("\n"):
            complete, last = [*complete, last], ""
        if len(last.strip()) > _LONGEST:
            *cut, last = split(last, language=self._language, limit=_LONGEST)
            complete += cut
        self._text = last
        return [sentence for sentence in complete if sentence.strip()]

    def flush(self) -> list[str]:
        """What is left, be it a sentence or not."""
        text, self._text = self._text, ""
        return [text] if text.strip() else []
