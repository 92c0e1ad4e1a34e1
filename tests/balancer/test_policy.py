"""How the next worker is chosen."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.policy import POLICIES, Ask, LeastOutstanding, PowerOfTwo, RoundRobin, VoiceAffinity


@dataclass
class Some:
    """A worker as a policy sees it."""

    url: str
    occupancy: float = 0.1
    backlog: float = 0.0
    weight: float = 1.0


def some(count: int) -> list[Some]:
    return [Some(f"http://w{n}") for n in range(count)]


@given(steps=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=60))
def test_round_robin_is_fair_among_the_able(steps: list[set[int]]) -> None:
    """The one chosen is the first able one after the last one chosen, going round."""
    policy, everyone, last = RoundRobin(), some(5), -1
    for able in steps:
        chosen = everyone.index(policy.choose([everyone[n] for n in sorted(able)], everyone, Ask()))
        assert chosen == next(n % 5 for n in range(last + 1, last + 6) if n % 5 in able)
        last = chosen


def test_second_attempt_is_no_turn_of_round_robin() -> None:
    """Else, of two workers, a failing one would be the first choice of every request."""
    policy, everyone = RoundRobin(), some(2)
    firsts = []
    for _ in range(4):
        first = policy.choose(everyone, everyone, Ask())
        policy.choose([worker for worker in everyone if worker is not first], everyone, Ask(again=True))
        firsts.append(first.url)
    assert firsts == ["http://w0", "http://w1"] * 2


def test_slow_start_takes_its_share_of_turns() -> None:
    """A worker of weight 0.25 gets a quarter of its turns, and all of them when it is alone."""
    policy, everyone = RoundRobin(), some(2)
    everyone[1].weight = 0.25
    served = Counter(policy.choose(everyone, everyone, Ask()).url for _ in range(500))
    assert served["http://w1"] == pytest.approx(100, abs=2)
    assert policy.choose(everyone[1:], everyone, Ask()) is everyone[1]


def test_least_outstanding_takes_the_least_loaded_and_turns_among_equals() -> None:
    """Requests over places and weight decide, then characters."""
    policy, everyone = LeastOutstanding(), some(3)
    assert len({policy.choose(everyone, everyone, Ask()).url for _ in range(3)}) == 3
    everyone[0].occupancy, everyone[1].occupancy, everyone[2].occupancy = 0.5, 0.3, 0.2
    assert policy.choose(everyone, everyone, Ask()) is everyone[2]
    everyone[2].weight = 0.5
    assert policy.choose(everyone, everyone, Ask()) is everyone[1]
    everyone[0].occupancy, everyone[1].backlog = 0.3, 5.0
    assert policy.choose(everyone, everyone, Ask()) is everyone[0]


def test_power_of_two_never_takes_the_most_loaded_of_more_than_one() -> None:
    """The better of two drawn."""
    policy, everyone = PowerOfTwo(random.Random(1)), some(4)
    everyone[3].occupancy = 0.9
    served = Counter(policy.choose(everyone, everyone, Ask()).url for _ in range(300))
    assert served.keys() == {"http://w0", "http://w1", "http://w2"}
    assert policy.choose(everyone[3:], everyone, Ask()) is everyone[3]


def test_voice_stays_with_its_worker_and_moves_only_when_that_goes() -> None:
    """However it is written; when a worker goes, only its own voices move."""
    policy, everyone = VoiceAffinity(), some(5)
    voices = [f"voice-{n}" for n in range(200)]
    home = {voice: policy.choose(everyone, everyone, Ask(voice=voice)) for voice in voices}
    assert all(policy.choose(everyone, everyone, Ask(voice=voice.upper())) is home[voice] for voice in voices)
    assert min(Counter(worker.url for worker in home.values()).values()) > 20
    for voice in voices:
        if home[voice] is not everyone[0]:
            assert policy.choose(everyone[1:], everyone, Ask(voice=voice)) is home[voice]


@given(voice=st.text(max_size=5), weights=st.lists(st.floats(0.1, 1), min_size=5, max_size=5))
def test_voice_has_a_second_worker_for_when_the_first_is_busy(voice: str, weights: list[float]) -> None:
    """A voice that all the world wants is spread over two workers, each no busier than the other by more than one."""
    policy, everyone = VoiceAffinity(), some(5)
    for worker in everyone:
        worker.occupancy = 1 / 16
    served = Counter[str]()
    for _ in range(32):
        chosen = policy.choose(everyone, everyone, Ask(voice=voice))
        chosen.occupancy += 1 / 16
        served[chosen.url] += 1
    assert sorted(served.values()) == [16, 16]
    home = max(served, key=lambda url: served[url])
    assert policy.choose(everyone, everyone, Ask(voice=None)).url not in (*served, home)
    for worker, weight in zip(everyone, weights, strict=True):
        worker.occupancy, worker.weight = 1 / 16, weight
    chosen = policy.choose(everyone, everyone, Ask(voice=voice))
    assert chosen.weight == max(worker.weight for worker in everyone if worker.url in served)


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_chooses_a_candidate(name: str) -> None:
    """And goes by the name that the settings know it by."""
    policy, everyone = POLICIES[name](), some(3)
    assert policy.name == name
    assert policy.choose(everyone[1:2], everyone, Ask(voice="x")) is everyone[1]
