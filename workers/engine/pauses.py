"""Pauses that a text asks for: `[pause 0.5s]`, and the gap between paragraphs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleet.errors import InvalidValue

LONGEST_PAUSE_S = 10.0
ALL_PAUSES_S = 60.0
"""Of one text together."""

SENTENCE_PAUSE_S, PARAGRAPH_PAUSE_S = 0.2, 0.5
"""Silence between segments, beside what is left of the quiet at their ends."""

_MARK = re.compile(r"\[pause[ :]\s*+(\d++(?:\.\d++)?)\s*+(?:(ms|s)\s*+)?\]", re.IGNORECASE)
"""Possessive throughout: whoever writes ten thousand spaces into a mark keeps nobody waiting."""
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")


@dataclass(frozen=True, slots=True)
class Passage:
    """Text without pauses of its own, and the seconds of silence that its writer wants behind it."""

    text: str
    pause_s: float


def passages(text: str) -> list[Passage]:
    """The text between marks and between paragraphs; the first or the last one's text may be empty.

    Marks that follow each other add up; beside a mark, the end of a paragraph adds nothing.
    """
    found: list[Passage] = []
    position = 0
    for mark in _MARK.finditer(text):
        found += _paragraphs(text[position : mark.start()], _seconds(mark), first=position == 0)
        position = mark.end()
    return found + _paragraphs(text[position:], 0.0, first=position == 0, last=True)


def check_pauses(text: str, param: str) -> None:
    """Raises `InvalidValue` for pauses that are too long."""
    seconds = [_seconds(mark) for mark in _MARK.finditer(text)]
    if any(pause > LONGEST_PAUSE_S for pause in seconds):
        raise InvalidValue(f"a pause may last at most {LONGEST_PAUSE_S:g} s", param=param)
    if sum(seconds) > ALL_PAUSES_S:
        raise InvalidValue(f"the pauses of a text may last at most {ALL_PAUSES_S:g} s together", param=param)


def _seconds(mark: re.Match[str]) -> float:
    value = float(mark[1])
    return value / 1000 if (mark[2] or "s").lower() == "ms" else value


def _paragraphs(text: str, pause_s: float, *, first: bool, last: bool = False) -> list[Passage]:
    parts = [part.strip() for part in _PARAGRAPH.split(text)]
    parts = [part for part in parts if part]
    if not parts:  # a mark before all text, or right behind another one
        return [] if last or (first and not pause_s) else [Passage("", pause_s)]
    return [*(Passage(part, PARAGRAPH_PAUSE_S) for part in parts[:-1]), Passage(parts[-1], pause_s)]
