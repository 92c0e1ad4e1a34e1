"""The menu of `scripts/manage`: numbered lines of plain text, read a line at a time, for any terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet.installed import InstalledFleet


@dataclass(frozen=True, slots=True)
class _Line:
    """`asks` is for a name, where the command takes one; an empty answer leaves it out when it is `optional`."""

    words: tuple[str, ...]
    says: str
    asks: str | None = None
    optional: bool = False


_LINES = (
    _Line(("status",), "status"),
    _Line(("start",), "start"),
    _Line(("stop",), "stop"),
    _Line(("restart",), "restart (requests fail meanwhile)"),
    _Line(("rolling-restart",), "rolling restart (no request fails)"),
    _Line(("logs",), "logs", "of which one (empty: all)? ", optional=True),
    _Line(("logs", "--follow"), "logs, followed until Ctrl-C", "of which one (empty: all)? ", optional=True),
    _Line(("drain",), "drain a worker", "which worker? "),
    _Line(("resume",), "resume a drained worker", "which worker? "),
)


def serve(fleet: InstalledFleet, do: Callable[[Sequence[str]], int]) -> int:
    """Ask and do until 0, an end of input or Ctrl-C at the prompt; `do` runs a plain command."""
    try:
        while True:
            print(f"\nChatterbox Fleet, kept by {fleet.kept_by}")
            for number, line in enumerate(_LINES, 1):
                print(f"  {number}  {line.says}")
            print("  0  leave")
            chosen = _ask("number? ")
            if chosen == "0":
                return 0
            if not chosen.isdecimal() or int(chosen) > len(_LINES):
                print(f"{chosen!r} is none of them")
                continue
            words = _words(_LINES[int(chosen) - 1])
            if words is not None:
                do(words)
    except (EOFError, KeyboardInterrupt):
        print()
        return 0


def _words(line: _Line) -> list[str] | None:
    """The command; none when it lacks a name."""
    if line.asks is None:
        return list(line.words)
    name = _ask(line.asks)
    if name or line.optional:
        # After "--" a name is a name, whatever it begins with.
        return [*line.words, "--", name] if name else list(line.words)
    print("nothing done")
    return None


def _ask(question: str) -> str:
    return input(question).strip()
