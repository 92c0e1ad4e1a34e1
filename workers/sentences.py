"""Text as it is written, a few characters at a time, made into sentences as soon as each is complete."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from workers.engine.segments import sentences, split

_LONGEST = 300
"""Characters without the end of a sentence after which what is there is spoken up to a space."""

_OPENED = re.compile(r"""(?<=[\s。！？])["'“„«‘(（「『]\s*$""")  # noqa: RUF001 - meant as they stand
"""A quotation that begins: before its first words are written, it looks like the end of what is before it."""


class SentenceBuffer:
    """Holds what has been written and not yet said; `language` is a tag."""

    def __init__(self, language: str) -> None:
        self._language = language
        self._text = ""

    def __len__(self) -> int:
        """Characters held; at most a sentence that is cut when it grows too long."""
        return len(self._text)

    def add(self, text: str) -> list[str]:
        """The sentences that are complete now: another one has begun behind them, or a new line."""
        *complete, last = _with_their_quotes(sentences(self._text + text, self._language))
        if last.endswith("\n"):
            complete, last = [*complete, last], ""
        if len(last) > _LONGEST:
            *cut, rest = split(last, language=self._language, limit=_LONGEST) or [""]
            complete, last = complete + cut, rest + last[len(last.rstrip()) :][:1]
        self._text = last if last.strip() else ""
        return [sentence for sentence in complete if sentence.strip()]

    def flush(self) -> list[str]:
        """What is left, be it a sentence or not."""
        text, self._text = self._text, ""
        return [text] if text.strip() else []


def _with_their_quotes(found: Iterable[str]) -> Iterator[str]:
    """The sentences, each with the quotation mark that opens it."""
    before = ""
    for sentence in found:
        opening = _OPENED.search(before)
        opened = "" if opening is None else opening.group()
        if ended := before.removesuffix(opened):
            yield ended
        before = opened + sentence
    yield before
