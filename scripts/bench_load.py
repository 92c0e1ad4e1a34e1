"""Speech requests over HTTP at a given load, and what a listener of each would have heard."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any

import httpx2
import numpy as np

from fleet.contract import SAMPLE_RATE
from fleet.error_answers import from_response

BYTES_PER_S = 2 * SAMPLE_RATE
OK = "ok"
PROSE = """
The morning train was late again, so we walked along the river and talked about the house that she wanted to build,
with a garden and apple trees.

When the rain had stopped at last, the children ran down to the harbour to see which of the boats had come back from
the islands during the night.

He had kept the letters in a wooden box under the stairs for thirty years, and nobody in the family knew who had
written them or why they were there.

Turn left at the old post office, follow the road as far as the bridge, and you will find the museum on the other
side, just behind the tall white church.

Most of the bread in this town is still made by hand, which is why the ovens are lit at three in the morning and the
first loaves are sold before six.

The committee will meet again on Thursday to discuss the plans for the new library, and everyone who lives in the
district is invited to come and to listen.

She counted the stars above the mountain until she fell asleep, and in the morning there was nothing left of the fire
but a thin line of grey smoke.

A good map does not show everything that is there; it leaves out what you do not need, so that you can find the one
thing that you are looking for.
"""
TEXTS = [" ".join(paragraph.split()) for paragraph in PROSE.split("\n\n")]
"""About ten seconds of speech each."""

Body = dict[str, Any]
"""A speech request."""
Look = Callable[[int], Coroutine[Any, Any, None]]
"""Told how many requests have ended."""


def requests(texts: Sequence[str], first_seed: int, **fields: object) -> Iterator[Body]:
    """One after the other without end, each with a seed of its own; fields that are None are left out."""
    fixed = {name: value for name, value in fields.items() if value is not None}
    for number in count():
        yield {**fixed, "input": texts[number % len(texts)], "seed": first_seed + number, "response_format": "pcm"}


class Player:
    """Plays a stream in real time from its first piece on. Times are of one clock, in seconds."""

    def __init__(self) -> None:
        self.first_at: float | None = None
        self.size = 0
        """Bytes."""
        self.gaps_s: list[float] = []
        """How long the player was silent each time that all sound so far had been played before more came."""
        self._dry_at = 0.0

    def hear(self, size: int, at: float) -> None:
        """So many bytes of PCM have come."""
        if not size:
            return
        if self.first_at is None:
            self.first_at = self._dry_at = at
        elif at > self._dry_at:
            self.gaps_s.append(at - self._dry_at)
            self._dry_at = at
        self._dry_at += size / BYTES_PER_S
        self.size += size


@dataclass(frozen=True, slots=True)
class Heard:
    """One request. `outcome` is `ok`, the status and code of an error answer, or the name of the connection's error.

    `ttfa_s` and `total_s` run until the first and the last byte of sound, from when the request was sent, or in an open
    loop from when it was due.
    """

    seed: int
    outcome: str
    message: str
    ttfa_s: float | None
    total_s: float
    audio_s: float
    gaps_s: tuple[float, ...]


async def listen(client: httpx2.AsyncClient, body: Body, began: float) -> Heard:
    player, outcome, message = Player(), OK, ""
    try:
        async with client.stream("POST", "/v1/audio/speech", json=body) as answer:
            if answer.is_success:
                async for piece in answer.aiter_raw():
                    player.hear(len(piece), time.perf_counter())
                if player.first_at is None:
                    outcome = message = f"{answer.status_code} without sound"
            else:
                error = from_response(answer.status_code, _json(await answer.aread()))
                outcome, message = f"{answer.status_code} {error.code}", error.message
    except httpx2.HTTPError as problem:
        outcome, message = type(problem).__name__, str(problem)
    return Heard(
        seed=body["seed"],
        outcome=outcome,
        message=message,
        ttfa_s=None if player.first_at is None else player.first_at - began,
        total_s=time.perf_counter() - began,
        audio_s=player.size / BYTES_PER_S,
        gaps_s=tuple(player.gaps_s),
    )


def _json(content: bytes) -> object:
    try:
        found: object = json.loads(content)
    except ValueError:
        return None
    return found


class Load:
    """What was asked at one load, once. `look` is called whenever so many more requests have ended, beside the load."""

    def __init__(self, client: httpx2.AsyncClient, bodies: Iterator[Body], look: Look, *, every: int) -> None:
        self.heard: list[Heard] = []
        self.not_sent = 0
        self._client = client
        self._bodies = bodies
        self._look = look
        self._every = every
        self._tasks = asyncio.TaskGroup()
        self._began = self._ended = 0.0

    @property
    def seconds(self) -> float:
        """From the start to the end of the last request."""
        return self._ended - self._began

    async def closed(self, concurrency: int, requests: int) -> None:
        """So many requests, `concurrency` in flight until the last has been sent."""
        todo = islice(self._bodies, requests)

        async def lane() -> None:
            for body in todo:
                await self._ask(body, time.perf_counter())

        self._began = self._ended = time.perf_counter()
        async with self._tasks as tasks:
            for _ in range(min(concurrency, requests)):
                tasks.create_task(lane())

    async def open(self, rate: float, seconds: float, *, most_in_flight: int, seed: int) -> None:
        """Requests are sent when they are due, whatever became of those before; one too many is not sent."""
        sent = 0
        self._began = self._ended = began = time.perf_counter()
        async with self._tasks as tasks:
            for arrival in arrivals(rate, seconds, seed):
                await asyncio.sleep(max(0.0, began + arrival - time.perf_counter()))
                if sent - len(self.heard) >= most_in_flight:
                    self.not_sent += 1
                else:
                    sent += 1
                    tasks.create_task(self._ask(next(self._bodies), began + arrival))

    async def _ask(self, body: Body, began: float) -> None:
        self.heard.append(await listen(self._client, body, began))
        self._ended = time.perf_counter()
        if len(self.heard) % self._every == 0:
            self._tasks.create_task(self._look(len(self.heard)))


def arrivals(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Seconds until each arrival of a Poisson process of so many a second."""
    numbers = np.random.default_rng(seed)
    due = numbers.exponential(1 / rate)
    while due < seconds:
        yield due
        due += numbers.exponential(1 / rate)


def percentiles(values: Sequence[float], *which: int) -> dict[str, float] | None:
    """Between the two nearest values, so never beyond the largest; None of no values."""
    if not values:
        return None
    found = np.percentile(values, which)
    return {f"p{each}": round(float(value), 4) for each, value in zip(which, found, strict=True)}


def aggregate(load: Load) -> dict[str, Any]:
    """The figures of one load; of requests that failed only their number counts."""
    ok = [heard for heard in load.heard if heard.outcome == OK]
    audio_s = sum(heard.audio_s for heard in ok)
    gaps = [gap for heard in ok for gap in heard.gaps_s]
    return {
        "seconds": round(load.seconds, 4),
        "ok": len(ok),
        "failed": dict(Counter(heard.outcome for heard in load.heard if heard.outcome != OK)),
        "not_sent": load.not_sent,
        "ttfa_ms": percentiles([1000 * heard.ttfa_s for heard in ok if heard.ttfa_s is not None], 50, 90, 99),
        "rtf": percentiles([heard.total_s / heard.audio_s for heard in ok], 50, 90),
        "audio_s": round(audio_s, 3),
        "throughput": round(audio_s / load.seconds, 3) if load.heard else 0.0,
        "dry": {
            "streams": sum(bool(heard.gaps_s) for heard in ok),
            "gaps": len(gaps),
            "seconds": round(sum(gaps), 3),
            "longest_s": round(max(gaps, default=0.0), 3),
        },
    }
