"""Speech of mixed length asked for at a steady rate, by callers some of whom leave early or read slowly, and a count of
what became of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from bench_load import arrivals
from bench_streams import OK, Heard, Line, Lines
from tone import Tone

LENGTHS_S = (0.2, 0.2, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 8.0)
"""Each as likely as the others, 1.7 s in the mean."""
LEAVE, SLOW = 0.1, 0.05
"""Shares of the callers."""

_FIRST_BYTE_MS = (20.0, 400.0)
_FOR_SLOW_READERS = Tone(audio_s=60, pace=0)
"""2.9 MB at once: more than the sockets' buffers take, so that it is the balancer that has to wait."""
_SIP_PAUSE_S = 0.5
_LIMIT_S = 120.0
"""What has not ended then has hung."""


@dataclass(slots=True)
class Outcomes:
    """Each request is counted once. `refused` are those that were told by status 429 when to come again, `failed` all
    others of which no byte of sound came, by reason; `cut` are those that broke off later. `left` is what callers did.
    """

    complete: int = 0
    left: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)

    def count(self, heard: Heard, *, leaves: bool) -> None:
        if heard.outcome == OK:
            self.complete += 1
        elif heard.status == 429 and heard.retry_after is not None:
            self.refused["429"] += 1
        elif leaves and heard.outcome in ("unanswered", "unfinished"):
            self.left += 1
        elif heard.status == 200 and heard.first_byte_s is not None:
            self.cut[heard.outcome] += 1
        else:
            self.failed[heard.outcome] += 1

    def told(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}


class SlowLine(Line):
    """Takes what there is in sips."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_open:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(_SIP_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        if self.is_open:
            self._transport.resume_reading()


async def load(port: int, rate: float, seconds: float, outcomes: Outcomes, over: asyncio.Event) -> None:
    """So many requests a second in the mean, whatever becomes of those before; `over` is set when the last has been
    asked. Returns when all have ended.
    """
    lots = random.Random(0)  # noqa: S311 - no secret
    lines, slow_lines = Lines(port), Lines(port, SlowLine)

    async def ask() -> None:
        lot, first_byte_ms = lots.random(), lots.uniform(*_FIRST_BYTE_MS)
        tone = Tone(audio_s=lots.choice(LENGTHS_S), first_byte_ms=first_byte_ms)
        leaves = lot < LEAVE
        if LEAVE <= lot < LEAVE + SLOW:
            heard = await slow_lines.hear(_FOR_SLOW_READERS, Heard(), limit_s=_LIMIT_S)
        else:
            stays_s = lots.uniform(0, tone.audio_s + first_byte_ms / 1000) if leaves else _LIMIT_S
            heard = await lines.hear(tone, Heard(), limit_s=stays_s)
        outcomes.count(heard, leaves=leaves)

    began_at = asyncio.get_running_loop().time()
    async with asyncio.TaskGroup() as group:
        for due in arrivals(rate, seconds, seed=0):
            await asyncio.sleep(began_at + due - asyncio.get_running_loop().time())
            group.create_task(ask())
        over.set()
