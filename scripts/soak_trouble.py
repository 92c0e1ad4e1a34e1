"""What happens to the tone workers of a soak: they are killed in turn, and restarted one by one after a drain."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time

from bench_processes import HTTP, NotStarted, Processes, Way, stats

_DOWN_S = 0.5
"""From a kill to the next start, as a supervisor leaves it."""
_LOOK_S = 0.2
_LIMIT_S = 60.0


class Trouble:
    """Goes on until `over` is set. A worker has one trouble at a time. Times in seconds."""

    def __init__(self, tones: Processes, balancer: Way, over: asyncio.Event) -> None:
        self.kills = self.restarts = 0
        self._tones, self._balancer, self._over = tones, balancer, over
        self._in_trouble: set[int] = set()

    async def kill_in_turn(self, every_s: float) -> None:
        """One each `every_s`, with SIGKILL, in whatever it does; it is started again."""
        turns = itertools.cycle(range(len(self._tones.ways)))
        while await self._goes_on_after(every_s):
            number = next(turn for turn in turns if turn not in self._in_trouble)
            self._in_trouble.add(number)
            await asyncio.to_thread(self._kill, number)
            self._in_trouble.discard(number)

    async def roll(self, every_s: float) -> None:
        """All of them each `every_s`, one after the other: drained, and started again when they are idle."""
        while await self._goes_on_after(every_s):
            for number in range(len(self._tones.ways)):
                while number in self._in_trouble and await self._goes_on_after(_LOOK_S):
                    pass
                if self._over.is_set():
                    return
                self._in_trouble.add(number)
                await asyncio.to_thread(self._restart, number)
                self._in_trouble.discard(number)

    async def _goes_on_after(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return True
        return False

    def _kill(self, number: int) -> None:
        self._tones.end(number, signal.SIGKILL)
        self.kills += 1
        time.sleep(_DOWN_S)
        self._tones.again(number)

    def _restart(self, number: int) -> None:
        way = self._tones.ways[number]
        self._wait(way, state="ready")
        HTTP.post(f"{self._balancer.url}/workers/{way.name}/drain").raise_for_status()
        self._wait(way, in_flight=0)
        self._tones.end(number, signal.SIGTERM)
        self._tones.again(number)
        self.restarts += 1
        self._wait(way, state="ready")

    def _wait(self, way: Way, **wanted: object) -> None:
        """Until the balancer says so of it. Raises `NotStarted`."""
        deadline = time.monotonic() + _LIMIT_S
        while time.monotonic() < deadline:
            told = next(worker for worker in stats(self._balancer)["workers"] if worker["name"] == way.name)
            if all(told[name] == value for name, value in wanted.items()):
                return
            time.sleep(_LOOK_S)
        raise NotStarted(f"{way.name} was not {wanted} within {_LIMIT_S:g} s")
