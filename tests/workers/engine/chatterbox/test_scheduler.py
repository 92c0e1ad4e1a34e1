"""Continuous batching without a model."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleet.errors import InvalidValue, Overloaded
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.scheduler import Scheduler
from workers.engine.chatterbox.sequence import Finish, Sequence, Stage

SLOTS, POSITIONS, CHUNK, BUDGET, MAX_WAITING = 5, 200, 16, 40, 12


def make(name: str, *, rows: int = 2, prompt: int = 40, tokens: int = 10) -> Sequence:
    return Sequence(
        id=name,
        text_tokens=[],
        prompt_positions=prompt,
        max_tokens=tokens,
        seed=0,
        parameters=SamplingParameters(cfg_weight=0.5 if rows == 2 else 0),
    )


def scheduler() -> Scheduler:
    return Scheduler(slots=SLOTS, positions=POSITIONS, chunk=CHUNK, budget=BUDGET, max_waiting=MAX_WAITING)


class Traffic(RuleBasedStateMachine):
    """Random arrivals, ends and cancellations, ticks in between, and a device that is up to one step behind."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler = scheduler()
        self.live: list[Sequence] = []
        self.arrived: list[Sequence] = []
        self.admitted: list[Sequence] = []
        self.launched: dict[str, int] = {}
        self.prefilled: dict[str, int] = {}

    @rule(rows=st.sampled_from([1, 2]), prompt=st.integers(1, 120), tokens=st.integers(1, 12))
    def arrive(self, rows: int, prompt: int, tokens: int) -> None:
        sequence = make(str(len(self.arrived)), rows=rows, prompt=prompt, tokens=tokens)
        if self.scheduler.waiting >= MAX_WAITING:
            with pytest.raises(Overloaded):
                self.scheduler.add(sequence)
            return
        self.scheduler.add(sequence)
        self.arrived.append(sequence)
        self.live.append(sequence)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), how=st.sampled_from([Finish.STOP, Finish.FAILED, Finish.CANCELLED]))
    def end(self, data: st.DataObject, how: Finish) -> None:
        sequence = data.draw(st.sampled_from(self.live))
        if how is Finish.CANCELLED:
            self.scheduler.cancel(sequence.id)
        else:
            self.scheduler.finish(sequence, how)
        self.live.remove(sequence)
        assert sequence.finish is how
        self.scheduler.finish(sequence, Finish.STOP)
        assert sequence.finish is how

    @rule()
    def tick(self) -> None:
        waiting_before = [s for s in self.live if s.stage is Stage.WAITING]
        tick = self.scheduler.plan()
        self.admitted += [s for s in waiting_before if s.stage is not Stage.WAITING]
        spent = 0
        for chunk in tick.prefill:
            name = chunk.sequence.id
            assert chunk.start == self.prefilled.get(name, 0)
            assert chunk.stop - chunk.start == min(CHUNK, chunk.sequence.prompt_positions - chunk.start)
            self.prefilled[name] = chunk.stop
            spent += (chunk.stop - chunk.start) * chunk.sequence.rows
        assert spent <= BUDGET or len(tick.prefill) == 1
        assert sum(sequence.rows for sequence in tick.decode) <= SLOTS
        for sequence in tick.decode:
            assert self.prefilled[sequence.id] == sequence.prompt_positions
            self.launched[sequence.id] = self.launched.get(sequence.id, 0) + 1
        for sequence in [s for s in self.live if self.launched.get(s.id) == s.max_tokens]:
            self.scheduler.finish(sequence, Finish.LENGTH)
            self.live.remove(sequence)

    @rule()
    def drain(self) -> None:
        """Whatever is there ends within a bounded number of ticks."""
        work = sum(-(-s.prompt_positions // CHUNK) + s.max_tokens for s in self.live)
        for _ in range(work):
            if not self.live:
                break
            self.tick()
        assert not self.live
        assert self.scheduler.idle
        assert self.scheduler.free_slots == SLOTS

    @invariant()
    def no_slot_is_leaked_or_shared(self) -> None:
        held = [slot for sequence in self.live for slot in sequence.slots]
        assert sorted(held + self.scheduler._free) == list(range(SLOTS))
        assert all(len(s.slots) in {0, s.rows} for s in self.live)
        assert not any(s.slots for s in self.arrived if s.finished)

    @invariant()
    def limits_are_kept(self) -> None:
        assert self.scheduler.waiting <= MAX_WAITING
        assert all(count <= self.arrived[int(name)].max_tokens for name, count in self.launched.items())
        assert self.scheduler.waiting + self.scheduler.running == len(self.live)

    @invariant()
    def nobody_overtakes(self) -> None:
        order = [int(sequence.id) for sequence in self.admitted]
        assert order == sorted(order)


TestTraffic = Traffic.TestCase
TestTraffic.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_room_is_used_as_soon_as_it_is_there() -> None:
    """The next sequence takes the slots of a cancelled one in the very next tick."""
    full = scheduler()
    running = [make(f"r{n}", prompt=8) for n in range(2)]
    waiting = make("w", prompt=8)
    for sequence in (*running, waiting):
        full.add(sequence)
    full.plan()
    assert waiting.stage is Stage.WAITING
    slots = running[0].slots
    full.cancel("r0")
    assert full.plan().decode == [running[1], waiting]
    assert waiting.slots == slots


@pytest.mark.parametrize(
    ("sequence", "param"),
    [
        (make("twice"), "id"),
        (make("long", prompt=POSITIONS, tokens=1), "max_tokens"),
    ],
)
def test_what_can_never_run_is_refused(sequence: Sequence, param: str) -> None:
    """With the parameter named, and nothing is queued."""
    waiting = scheduler()
    waiting.add(make("twice"))
    with pytest.raises(InvalidValue) as refused:
        waiting.add(sequence)
    assert refused.value.param == param
    assert waiting.waiting == 1


def test_guidance_needs_two_slots() -> None:
    """A cache of one slot serves requests without guidance and says so to the others."""
    small = Scheduler(slots=1, positions=POSITIONS, chunk=CHUNK, budget=BUDGET, max_waiting=1)
    with pytest.raises(InvalidValue) as refused:
        small.add(make("a"))
    assert refused.value.param == "cfg_weight"
    small.add(make("b", rows=1))


def test_no_torch() -> None:
    """Scheduler and sequence work where torch cannot be imported."""
    code = (
        "import sys; sys.modules['torch'] = None; "
        "import workers.engine.chatterbox.scheduler, workers.engine.chatterbox.sequence"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
