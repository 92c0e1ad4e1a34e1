"""The same faults under HAProxy and under our balancer, before the same workers: what it serves, so do we."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.balancer import faulty
from tests.balancer.haproxy import RunningHaproxy
from tests.running import RunningBalancer, RunningTone, wait_for

SPOKEN = {"audio_s": 0.1, "chunk_ms": 50, "pace": 0, "first_byte_ms": 200}
"""Silent for a while and then whole at once: a death meets what had not begun, which another worker can speak."""

TIMES = {"idle_timeout_s": 1.5, "probe_interval_s": 0.5, "probe_timeout_s": 1.0}
HEALTH = faulty.HEALTH.model_copy(update={"engine": "tone", "model": "tone-1"})
RATE = 20
LOAD_S = 0.8
"""How long the load goes on after the last step."""

SERVED = "served"


@dataclass(frozen=True, slots=True)
class Ours:
    """The balancer, whose workers are those of a file."""

    running: RunningBalancer
    file: Path

    def reload(self, *urls: str) -> None:
        self.file.write_text("\n".join(urls))
        self.running.signal(signal.SIGHUP)

    def wait_ready(self, urls: Sequence[str]) -> None:
        """Until these are ready, and no others."""
        wanted = {(url, "ready") for url in urls}
        wait_for(lambda: {(worker.url, worker.state) for worker in self.running.stats().workers} == wanted, every_s=0.2)


@dataclass(frozen=True, slots=True)
class Scene:
    """Both ways to the same workers. The fault is that of the first, unless all of them have it."""

    urls: list[str]
    tones: list[RunningTone]
    ours: Ours
    haproxy: RunningHaproxy

    def kill(self, count: int = 1) -> None:
        for tone in self.tones[:count]:
            tone.kill()

    def start(self, count: int = 1) -> None:
        """Again, until the balancer takes them for ready."""
        for tone in self.tones[:count]:
            tone.start()
        self.ours.wait_ready(self.urls)

    def stop(self) -> None:
        self.tones[0].signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.tones[0].signal(signal.SIGCONT)

    def reload(self, count: int) -> None:
        """The last `count` workers from now on."""
        for way in (self.ours, self.haproxy):
            way.reload(*self.urls[-count:])
        self.ours.wait_ready(self.urls[-count:])


Step = Callable[[Scene], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """The first worker answers with `answer`, or is a tone worker like the others; `steps` are taken one after the
    other during the load, each so many seconds after the one before. `slack` is how many requests may hang on which of
    the two ways notices first that a worker is back: what comes in between two probes.
    """

    answer: faulty.Fault | None = None
    steps: tuple[tuple[float, Step], ...] = ()
    slack: int = 0


FAULTS = {
    "refuses connections": Fault(steps=((0, Scene.kill),)),
    "closes before headers": Fault(faulty.close_before_headers),
    "closes after headers": Fault(faulty.close_after_headers),
    "never answers": Fault(faulty.never_answer),
    "answers 503": Fault(faulty.answer_unavailable),
    "answers 429": Fault(faulty.answer_full),
    "answers late": Fault(faulty.answer_late),
    "killed": Fault(steps=((0.3, Scene.kill),)),
    "killed and back": Fault(steps=((0.3, Scene.kill), (0.2, Scene.start))),
    "stopped and continued": Fault(steps=((0.3, Scene.stop), (2.3, Scene.go_on))),
    "reload": Fault(steps=((0.3, lambda scene: scene.reload(2)), (0.3, lambda scene: scene.reload(3)))),
    "all down, then up": Fault(
        steps=((0.325, lambda scene: scene.kill(3)), (0.5, lambda scene: scene.start(3))),
        slack=round(RATE * TIMES["probe_interval_s"]),
    ),
}


@pytest.fixture(scope="module")
def good() -> Iterator[list[RunningTone]]:
    """Two workers without a fault, for all faults."""
    workers = [RunningTone(f"good-{n}", **SPOKEN) for n in range(2)]
    with ExitStack() as held:
        yield [held.enter_context(worker) for worker in workers]


@pytest.fixture(scope="module")
def ours(good: list[RunningTone], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    """One balancer for all faults, whose budget of retries, which is of 10 s, each fault would take from the next."""
    file = tmp_path_factory.mktemp("ours") / "workers"
    file.write_text("\n".join(worker.url for worker in good))
    with RunningBalancer("none", workers_file=file, least_retries=1000, **TIMES) as running:
        yield Ours(running, file)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as held:
        yield held


@pytest.mark.parametrize("name", FAULTS)
def test_what_haproxy_serves_so_do_we(
    name: str, good: list[RunningTone], ours: Ours, stack: ExitStack, tmp_path: Path
) -> None:
    """Every request that HAProxy answers with a whole 200 is so answered by the balancer too."""
    fault = FAULTS[name]
    scene = staged(fault, good, ours, stack, tmp_path)
    by_haproxy, by_ours = asyncio.run(played(scene, fault))
    worse = [(n, us) for n, (it, us) in enumerate(zip(by_haproxy, by_ours, strict=True)) if it == SERVED != us]
    assert SERVED in by_haproxy
    assert len(worse) <= fault.slack, worse
    assert by_ours[-1] == SERVED
    ours.running.wait_idle(5)


def staged(fault: Fault, good: list[RunningTone], ours: Ours, stack: ExitStack, folder: Path) -> Scene:
    """Both ways over three workers, with all of them ready."""
    first = RunningTone("first", **SPOKEN) if fault.answer is None else faulty.FaultyWorker(fault.answer, health=HEALTH)
    stack.enter_context(first)
    urls = [first.url, *(worker.url for worker in good)]
    haproxy = stack.enter_context(RunningHaproxy(folder, *urls, **TIMES))
    ours.reload(*urls)
    ours.wait_ready(urls)
    return Scene(urls, [first, *good] if isinstance(first, RunningTone) else good, ours, haproxy)


async def played(scene: Scene, fault: Fault) -> tuple[list[str], list[str]]:
    """What became of each request, by HAProxy and by ours, under a steady load."""
    limits = httpx2.Limits(max_keepalive_connections=0)  # a connection of its own for each: none closes just then
    async with httpx2.AsyncClient(trust_env=False, timeout=20, limits=limits) as client, asyncio.TaskGroup() as group:
        over, asked = group.create_task(acted(scene, fault.steps)), []
        while not over.done():
            asked.append([group.create_task(outcome(client, way.url)) for way in (scene.haproxy, scene.ours.running)])
            await asyncio.sleep(1 / RATE)
    by_haproxy, by_ours = zip(*([task.result() for task in pair] for pair in asked), strict=True)
    return list(by_haproxy), list(by_ours)


async def acted(scene: Scene, steps: tuple[tuple[float, Step], ...]) -> None:
    for pause_s, step in (*steps, (LOAD_S, lambda _: None)):
        await asyncio.sleep(pause_s)
        await asyncio.to_thread(step, scene)


async def outcome(client: httpx2.AsyncClient, url: str) -> str:
    """`served`, `refused` with a status, `cut short` after the head, or `unanswered`."""
    came = "unanswered"
    try:
        async with client.stream("POST", f"{url}/v1/audio/speech", json={"input": "hi"}) as answer:
            came = "cut short"
            async for _ in answer.aiter_raw():
                pass
    except httpx2.HTTPError:
        return came
    return SERVED if answer.status_code == 200 else f"refused {answer.status_code}"
