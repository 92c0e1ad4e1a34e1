"""Streams asked of tone workers, directly or through a proxy, and when each of their chunks came.

A bare client on sockets, since a complete one would take more time than what is measured.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, cast

import httptools
from bench_load import percentiles
from tone import STAMP_BYTES, Tone

HOST = "127.0.0.1"
OK = "ok"
_LATE_S = 0.01
RAMP_PER_S = 80
"""Streams begun in a second where many are to be live: few enough that their beginnings are not what is measured."""
_TEXT = "The morning train was late again, so we walked along the river and talked about the house."


@dataclass(slots=True)
class Heard:
    """One stream, filled while it is heard. Times are seconds of the monotonic clock.

    `outcome` is `unanswered` until the head is here and `unfinished` until the end is, then `ok` or the status and code
    of an error answer; or it names what became of the connection.
    """

    asked_at: float = 0.0
    outcome: str = "unanswered"
    status: int = 0
    retry_after: str | None = None
    first_byte_s: float | None = None
    """From the request's write to the first byte of the body."""
    arrivals: list[float] = field(default_factory=list)
    """When each chunk was whole."""
    transits: list[float] = field(default_factory=list)
    """How long each took from the worker's write until then."""


class Line(asyncio.Protocol):
    """One connection, for one stream at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ended: asyncio.Future[None] | None = None

    async def ask(self, request: bytes, chunk_bytes: int, heard: Heard) -> None:
        """Ends with the answer, or with the connection."""
        self._heard, self._chunk_bytes = heard, chunk_bytes
        self._position = 0  # within the chunk that is coming
        self._stamp = self._said = b""
        self._parser = httptools.HttpResponseParser(self)
        self._ended = asyncio.get_running_loop().create_future()
        heard.asked_at = time.monotonic()
        self._transport.write(request)
        await self._ended

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic()
        if self._ended is None:  # nothing was asked: the other side says why it closes
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._heard.outcome = "no HTTP"
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ended is not None and not self._ended.done():
            if self._heard.outcome in ("unanswered", "unfinished"):
                self._heard.outcome += f": {type(exc).__name__ if exc else 'closed'}"
            self._ended.set_result(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._heard.retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._heard.status = self._parser.get_status_code()
        self._heard.outcome = "unfinished"

    def on_body(self, body: bytes) -> None:
        heard, start = self._heard, 0
        if heard.first_byte_s is None:
            heard.first_byte_s = self._now - heard.asked_at
        if heard.status != 200:
            self._said += body
            return
        while start < len(body):
            taken = min(len(body) - start, self._chunk_bytes - self._position)
            if self._position < STAMP_BYTES:
                self._stamp += body[start : start + min(taken, STAMP_BYTES - self._position)]
            start += taken
            self._position += taken
            if self._position == self._chunk_bytes:
                heard.arrivals.append(self._now)
                heard.transits.append(self._now - int.from_bytes(self._stamp, "little") / 1e9)
                self._position, self._stamp = 0, b""

    def on_message_complete(self) -> None:
        heard = self._heard
        heard.outcome = OK if heard.status == 200 else f"{heard.status} {_code(self._said)}".strip()
        if not self._parser.should_keep_alive():
            self._transport.close()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def _code(content: bytes) -> str:
    try:
        return str(json.loads(content)["error"]["code"])
    except (ValueError, LookupError, TypeError):
        return ""


class Lines:
    """Connections to one address, used again as long as the other side keeps them; `kind` is how they read."""

    def __init__(self, port: int, kind: type[Line] = Line) -> None:
        self._port, self._kind = port, kind
        self._idle: list[Line] = []

    async def hear(self, tone: Tone, heard: Heard, *, limit_s: float) -> Heard:
        """Fills and returns `heard`. A stream that is cancelled, or is not over in time, is left as it is."""
        try:
            async with asyncio.timeout(limit_s):
                line = await self._line()
                try:
                    await line.ask(self._request(tone), tone.chunk_bytes, heard)
                except asyncio.CancelledError:
                    line.abort()
                    raise
        except TimeoutError:
            return heard
        except OSError as error:
            heard.outcome = type(error).__name__
            return heard
        if heard.outcome == OK and len(heard.arrivals) < tone.chunks:
            heard.outcome = "cut short"
        if line.is_open:
            self._idle.append(line)
        return heard

    async def _line(self) -> Line:
        while self._idle:
            if (line := self._idle.pop()).is_open:
                return line
        _, line = await asyncio.get_running_loop().create_connection(self._kind, HOST, self._port)
        return line

    def _request(self, tone: Tone) -> bytes:
        asked = {"model": "tone-1", "voice": "alloy", "input": _TEXT, "response_format": "pcm", "tone": asdict(tone)}
        body = json.dumps(asked).encode()
        head = (
            f"POST /v1/audio/speech HTTP/1.1\r\nhost: {HOST}:{self._port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def outcomes(streams: Sequence[Heard]) -> dict[str, int]:
    return dict(Counter(heard.outcome for heard in streams).most_common())


def milliseconds(seconds: Sequence[float]) -> dict[str, float] | None:
    """Percentiles and the largest; None of nothing."""
    found = percentiles([1000 * value for value in seconds], 50, 90, 99)
    return found and {**found, "max": round(1000 * max(seconds), 4)}


def first_bytes(streams: Sequence[Heard]) -> list[float]:
    """Of the streams that were spoken to their end."""
    return [heard.first_byte_s for heard in streams if heard.outcome == OK and heard.first_byte_s is not None]


def lateness(streams: Sequence[Heard], chunk_s: float) -> dict[str, Any]:
    """Chunks against the time when a player without any reserve wanted them: the first one's arrival and one chunk's
    length for each after it. Early ones are 0.
    """
    late: list[float] = []
    by_a_chunk = 0
    for heard in streams:
        mine = [max(0.0, at - heard.arrivals[0] - n * chunk_s) for n, at in enumerate(heard.arrivals)][1:]
        by_a_chunk += bool(mine) and max(mine) > chunk_s
        late += mine
    return {
        "chunks": len(late),
        "late_ms": milliseconds(late),
        "share_late": _share(late, 0.0),
        "share_late_over_10_ms": _share(late, _LATE_S),
        "streams_late_over_a_chunk": by_a_chunk,
    }


def _share(late: Sequence[float], limit_s: float) -> float:
    return round(sum(value > limit_s for value in late) / max(1, len(late)), 5)


def added(direct: Sequence[Heard], through: Sequence[Heard]) -> dict[str, Any]:
    """What a way adds, in milliseconds, by streams of which those at one place in both are pairs."""
    pairs = [(one, other) for one, other in zip(direct, through, strict=True) if one.outcome == other.outcome == OK]
    times = [(one.first_byte_s or 0.0, other.first_byte_s or 0.0) for one, other in pairs]
    transits = [pair for one, other in pairs for pair in zip(one.transits, other.transits, strict=True)]
    return {"added_first_byte_ms": _difference(times), "added_transit_ms": _difference(transits)}


def _difference(pairs: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """The median of the pairs' differences, and the differences of the percentiles."""
    before, after = (milliseconds([pair[side] for pair in pairs]) for side in (0, 1))
    if before is None or after is None:
        return None
    differences = {name: round(after[name] - before[name], 4) for name in ("p50", "p90", "p99")}
    return {"median": round(1000 * median(other - one for one, other in pairs), 4), **differences}


async def in_turn(
    ports: Mapping[str, Sequence[int]], tone: Tone, *, lanes: int, rounds: int, turn: int
) -> dict[str, list[Heard]]:
    """Each way's streams, `turn` of each lane before the next way has its turn; those at one place are a pair.

    Each way is asked at its ports, the lanes shared out between them. Each has a turn before that does not count.
    """
    ways = {name: [Lines(port) for port in numbers] for name, numbers in ports.items()}
    heard: dict[str, list[Heard]] = {name: [] for name in ways}
    lots = random.Random(0)  # noqa: S311 - no secret

    async def lane(number: int, lines: Lines, streams: int) -> list[Heard]:
        found = []
        await asyncio.sleep(number * tone.audio_s / lanes)
        for _ in range(streams):
            await asyncio.sleep(lots.uniform(0, tone.chunk_ms / 1000))  # else the chunks of all would come in step
            found.append(await lines.hear(tone, Heard(), limit_s=30))
        return found

    async def all_lanes(way: Sequence[Lines], streams: int) -> list[Heard]:
        found = await asyncio.gather(*(lane(n, way[n % len(way)], streams) for n in range(lanes)))
        return [each for streams_of_one in found for each in streams_of_one]

    for way in ways.values():
        await all_lanes(way, 1)
    for number in range(rounds):
        shift = number % len(ways)
        for name in (*list(ways)[shift:], *list(ways)[:shift]):
            heard[name] += await all_lanes(ways[name], turn)
    return heard


async def begin(port: int, count: int, tone: Tone, limit_s: float) -> tuple[list[Heard], list[asyncio.Task[Heard]]]:
    """Streams begun one after the other, so that their chunks do not come all at once."""
    lines, streams, tasks = Lines(port), [Heard() for _ in range(count)], []
    began = time.monotonic()
    for number, heard in enumerate(streams):
        await asyncio.sleep(max(0.0, began + number / RAMP_PER_S - time.monotonic()))
        tasks.append(asyncio.create_task(lines.hear(tone, heard, limit_s=limit_s)))
    return streams, tasks


async def at_once(port: int, count: int, tone: Tone, limit_s: float) -> tuple[list[Heard], float]:
    """The streams, and the seconds until the last had ended."""
    lines, began = Lines(port), time.monotonic()
    streams = await asyncio.gather(*(lines.hear(tone, Heard(), limit_s=limit_s) for _ in range(count)))
    return streams, time.monotonic() - began
