"""The simulation of the balancer's policies agrees with queueing theory, and tells what it promises."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from balancer.policy import POLICIES, Ask, RoundRobin, W
from tests.running import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from simulate_policies import (
    CENTRAL_QUEUE,
    CHOOSERS,
    LOADS,
    SERIAL,
    ByCharacters,
    Scenario,
    batched,
    scenarios,
    simulate,
)
from simulated_workers import (
    TOKENS_PER_CHAR,
    VOICES_WARM,
    Balancer,
    Balancers,
    Kind,
    Request,
    Worker,
    run,
)


def serial(load: float, workers: int = 4, **more: Any) -> Scenario:
    return Scenario("test", SERIAL, load, "exponential", workers=workers, **more)


def waited(scenario: Scenario, chooser: str, requests: int) -> float:
    """The mean wait, in service times."""
    mean: float = simulate(scenario, chooser, requests, seed=3)["wait"]["mean"]
    return mean


def erlang_c(servers: int, load: float) -> float:
    """The chance that an arrival at M/M/c waits."""
    offered = servers * load
    all_busy = offered**servers / math.factorial(servers) / (1 - load)
    return all_busy / (all_busy + sum(offered**n / math.factorial(n) for n in range(servers)))


def ended(kind: Kind, *requests: Request) -> Worker:
    """A worker that has spoken these, given in the order they arrive."""
    worker = Worker("http://w", kind)
    run(requests, Balancers([Balancer(RoundRobin(), [worker])], random.Random(1)))
    return worker


def asked(number: int, tokens: float, at: float = 0.0, voice: int = 0) -> Request:
    return Request(number, at, tokens / TOKENS_PER_CHAR, voice)


@pytest.mark.parametrize("load", [0.5, 0.7])
def test_one_worker_is_mm1(load: float) -> None:
    """The mean wait is load / (1 - load) service times."""
    assert waited(serial(load, workers=1), "round_robin", 40_000) == pytest.approx(load / (1 - load), rel=0.05)


@pytest.mark.parametrize("load", [0.7, 0.85])
def test_central_queue_is_mmc(load: float) -> None:
    """The mean wait is Erlang's C over c (1 - load) service times."""
    expected = erlang_c(4, load) / (4 * (1 - load))
    assert waited(serial(load), CENTRAL_QUEUE, 60_000) == pytest.approx(expected, rel=0.06)


def test_round_robin_is_a_worker_fed_every_fourth_arrival() -> None:
    """The mean wait is that of E4/M/1, whose arrivals find the worker busy with the root of its fixed point."""
    load, busy = 0.7, 0.5
    for _ in range(200):
        busy = (4 * load / (4 * load + 1 - busy)) ** 4
    assert waited(serial(load), "round_robin", 50_000) == pytest.approx(busy / (1 - busy), rel=0.05)


@pytest.mark.parametrize("chooser", [*POLICIES, ByCharacters.name])
def test_with_admission_serial_workers_are_one_queue(chooser: str) -> None:
    """While places are free all of them are idle, so that the policy makes no difference to waiting."""
    assert waited(serial(0.85, admits=True), chooser, 1000) == waited(serial(0.85), CENTRAL_QUEUE, 1000)


def test_by_queue_lengths_policies_wait_as_the_design_says() -> None:
    """At load 0.85, where a policy knows nothing else of a worker; each waits less than the one before."""
    design = {"round_robin": 3.35, "p2c": 1.78, "least_outstanding": 1.38, CENTRAL_QUEUE: 1.21}
    waits = {chooser: waited(serial(0.85, counts_chars=False), chooser, 20_000) for chooser in design}
    assert waits == pytest.approx(design, rel=0.15)  # both are samples
    assert list(waits.values()) == sorted(waits.values(), reverse=True)


@pytest.mark.parametrize("chooser", ["p2c", "least_outstanding"])
def test_characters_settle_what_requests_leave_open(chooser: str) -> None:
    """Among queues of the same length the one with less to speak is the better choice."""
    assert waited(serial(0.85), chooser, 10_000) < waited(serial(0.85, counts_chars=False), chooser, 10_000)


def test_a_balancer_knows_what_a_policy_may_see() -> None:
    """Occupancy counts the request to come, and the others' requests when two probes have seen them; backlog only its
    own.
    """
    worker = Worker("http://w", Kind(slots=4, base_s=1.0, row_s=0.0))
    seen: list[tuple[float, float]] = []

    class Watching(RoundRobin):
        def choose(self, candidates: Sequence[W], everyone: Sequence[W], ask: Ask) -> W:
            seen.extend((each.occupancy, each.backlog) for each in everyone)
            return super().choose(candidates, everyone, ask)

    one, other = Balancer(Watching(), [worker]), Balancer(RoundRobin(), [worker])
    for number, balancer in enumerate((one, other, one)):
        request = Request(number, 0.0, 100.0, 0)
        assert balancer.place(request) is worker
        worker.give(request, 0.0)
    for _ in range(2):
        one.probe()
        one.place(Request(3, 0.0, 100.0, 0))
        one.ended(Request(3, 0.0, 100.0, 0))
    assert seen == [(1 / 4, 0), (2 / 4, 100 / 4), (3 / 4, 200 / 4), (4 / 4, 200 / 4)]


@pytest.mark.parametrize("lengths", ["lognormal", "mixed"])
def test_on_batched_workers_requests_tell_more_than_characters(lengths: str) -> None:
    """By requests first, a policy is near the central queue; by characters alone it is not."""
    scenario = Scenario("test", batched(16, 300), 0.85, lengths)
    by_requests, by_characters, best = (
        simulate(scenario, chooser, 4000, seed=3)["slowdown"]["mean"]
        for chooser in ("least_outstanding", ByCharacters.name, CENTRAL_QUEUE)
    )
    assert by_requests < 1.05 * best
    assert by_characters > 1.1 * best


def test_affinity_does_not_overload() -> None:
    """At load 0.95 of batched workers it is near the least outstanding, and no worker is given more than it can do."""
    scenario = Scenario("test", batched(16, 300), 0.95)
    affine, least = (simulate(scenario, chooser, 5000, seed=3) for chooser in ("voice_affinity", "least_outstanding"))
    assert affine["slowdown"]["mean"] < 1.05 * least["slowdown"]["mean"]
    assert affine["busiest"] < 1


def test_rows_share_a_step() -> None:
    """Two rows take longer than one, and the one that is left goes on at the speed of one."""
    kind = Kind(slots=2, base_s=1.0, row_s=0.5)
    requests = [asked(0, 10), asked(1, 20)]
    ended(kind, *requests)
    assert [each.starts_at for each in requests] == [0, 0]
    assert [each.ends_at for each in requests] == pytest.approx([20, 20 + 15])


def test_above_its_places_a_request_waits() -> None:
    """The first in the queue starts when a place is free."""
    requests = [asked(0, 10), asked(1, 10, at=1.0), asked(2, 10, at=2.0)]
    ended(Kind(slots=1, base_s=1.0, row_s=0.0), *requests)
    assert [each.starts_at for each in requests] == pytest.approx([0, 10, 20])


def test_half_the_speed_takes_twice_as_long() -> None:
    """Of a batched worker too."""
    kind = Kind(slots=4, base_s=0.5, row_s=0.5, speed=0.5)
    requests = [asked(0, 10)]
    ended(kind, *requests)
    assert requests[0].ends_at == pytest.approx(20)


def test_a_worker_keeps_the_voices_used_last() -> None:
    """A voice is cold at first, then warm until as many others as there is room for were used."""
    voices = [0, 0, *range(1, VOICES_WARM), 0, *range(VOICES_WARM, 2 * VOICES_WARM), 0]
    requests = [asked(number, 1, at=2.0 * number, voice=voice) for number, voice in enumerate(voices)]
    ended(SERIAL, *requests)
    assert [each.number for each in requests if each.warm] == [1, VOICES_WARM + 1]


def test_steps_are_those_of_an_h200() -> None:
    """The model goes through the three floors of the design notes."""
    assert batched(64, 1000).step_s(1) == pytest.approx(0.30e-3, rel=0.02)
    assert batched(64, 1000).step_s(64) == pytest.approx(3.9e-3, rel=0.02)
    assert batched(64, 300).step_s(64) == pytest.approx(1.34e-3, rel=0.02)


def test_balancers_learn_of_each_other() -> None:
    """Two that are told of each other's requests often wait less than two that never are, more than one that knows."""
    alone, never, often = (
        waited(scenario, "least_outstanding", 12_000)
        for scenario in (
            serial(0.85),
            serial(0.85, balancers=2),
            serial(0.85, balancers=2, told_every_s=0.5),
        )
    )
    assert alone < often < never


def test_affinity_finds_voices_warm() -> None:
    """More often than any other policy does."""
    scenario = Scenario("test", batched(16, 300), 0.85)
    warm = {chooser: simulate(scenario, chooser, 2000, seed=3)["warm"] for chooser in CHOOSERS}
    assert max(warm, key=warm.__getitem__) == "voice_affinity"


def test_the_script_writes_what_it_found(tmp_path: Path) -> None:
    """A short run has every policy in every scenario, and the same seed gives the same figures."""
    flags = ["--requests", "20", "--seed", "7", "--output"]
    results = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        command = [sys.executable, str(ROOT / "scripts/simulate_policies.py"), *flags, str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        (target,) = folder.glob("policies-*.json")
        results.append(json.loads(target.read_text()))
    first, second = results
    assert set(first) >= {"date", "command", "commit", "versions", "settings", "rows"}
    assert len(first["rows"]) == len(list(scenarios(300))) * len(CHOOSERS)
    assert {row["policy"] for row in first["rows"]} == {*POLICIES, ByCharacters.name, CENTRAL_QUEUE}
    assert {row["scenario"]["load"] for row in first["rows"]} == set(LOADS)
    assert first["rows"] == second["rows"]
