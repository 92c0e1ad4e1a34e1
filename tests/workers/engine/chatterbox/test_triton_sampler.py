"""The sampling kernel against plain torch: compiled on a GPU, else in Triton's interpreter."""

from __future__ import annotations

import itertools

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from workers.engine.chatterbox import noise, triton_sampler

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero encountered in log")  # NumPy's, of min_p = 0
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAN, INF = float("nan"), float("inf")
STOP, VOCABULARY = 5, 37


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape).to(DEVICE)


def ids(*numbers: int) -> Tensor:
    return torch.tensor(numbers, device=DEVICE)


@triton.jit  # type: ignore[untyped-decorator]  # Triton ships no types
def _words(seeds, counters, out) -> None:  # type: ignore[no-untyped-def]  # pointers inside, tensors outside
    lane = tl.arange(0, 2)
    counter = tl.load(counters + lane)
    w0, w1, w2, w3 = tl.philox(tl.load(seeds), counter, counter, counter, counter)
    tl.store(out + lane, w0)
    tl.store(out + 2 + lane, w1)
    tl.store(out + 4 + lane, w2)
    tl.store(out + 6 + lane, w3)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        (0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (-1, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ],
)
def test_tritons_philox_is_the_published_one(word: int, expected: tuple[int, ...]) -> None:
    """Random123's known answers (tests/kat_vectors): counter and key all zeros, and all ones."""
    out = torch.zeros(4, 2, dtype=torch.int64, device=DEVICE)
    _words[(1,)](ids(word), ids(word, word).int(), out)
    assert out[:, 0].tolist() == list(expected)


State = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


class Lines:
    """What `sample` takes: two rows of logits a line, and the state of its slot; the last slot is scratch."""

    def __init__(self, *parameters: tuple[float, float, float, float], vocabulary: int = VOCABULARY) -> None:
        count = len(parameters)
        self.logits = 3 * normal(2 * count, vocabulary)
        self.cond, self.uncond = (torch.randperm(2 * count).to(DEVICE).view(2, count)).unbind(0)
        self.slots = torch.randperm(count + 3).to(DEVICE)[:count]
        self.leads = self.slots.clone()
        self.seen = torch.rand(count + 4, vocabulary, device=DEVICE) < 0.3
        self.parameters = torch.full((count + 4, 4), NAN, device=DEVICE)
        self.parameters[self.slots] = torch.tensor(parameters, device=DEVICE)
        self.seeds = torch.randint(-(2**62), 2**62, (count + 4,), device=DEVICE)
        self.steps, self.lengths = torch.randint(0, 900, (2, count + 4), device=DEVICE)
        self.done = torch.zeros(count + 4, dtype=torch.bool, device=DEVICE)
        self.tokens = torch.full((count + 4,), 99, device=DEVICE)

    @property
    def state(self) -> State:
        return self.seen, self.parameters, self.seeds, self.steps, self.done, self.tokens, self.lengths

    def sample(self, *, processed: bool = False) -> list[int]:
        """One kernel step, after the same in torch: every tensor of the state must agree."""
        emitted = torch.full_like(self.cond, 77)
        expected = [t.clone() for t in self.state]
        wanted = [self.draw(line, expected, processed=processed) for line in range(len(self.cond))]
        where = self.cond, self.uncond, self.leads
        triton_sampler.sample(self.logits, *where, *self.state, emitted, stop=STOP, processed=processed)
        assert emitted.tolist() == wanted
        for actual, after in zip(self.state, expected, strict=True):
            assert torch.equal(actual.nan_to_num(-1.0), after.nan_to_num(-1.0))
        return wanted

    def draw(self, line: int, state: list[Tensor], *, processed: bool) -> int:
        seen, parameters, seeds, steps, done, tokens, lengths = state
        row, lead = self.cond[line], int(self.leads[line])
        if lead == len(done) - 1 or done[lead]:
            return -2
        guidance, temperature, min_p, penalty = parameters[lead]
        score = self.logits[line if processed else row]
        if not processed:
            score = score + guidance * (score - self.logits[self.uncond[line]])
            score = torch.where(seen[lead], torch.where(score < 0, score * penalty, score / penalty), score)
            score = score / temperature if temperature > 0 else score
        if score.isnan().any() or score.max().isinf() or not (processed or score.isfinite().all()):
            done[lead] = True
            return -1
        if temperature > 0:
            kept = torch.tensor(processed, device=DEVICE) | (score - score.max() >= min_p.log())
            drawn = noise.gumbel(seeds[lead, None], steps[lead, None], len(score))[0]
            score = torch.where(kept, score + drawn, -INF)
        token = int((score == score.max()).nonzero()[0])
        tokens[lead], seen[lead, token], done[lead] = token, True, token == STOP
        steps[lead] += 1
        lengths[lead] += 1
        return token


@pytest.mark.parametrize("vocabulary", [5, VOCABULARY, 8194])
def test_sampling_equals_the_same_steps_in_torch(vocabulary: int) -> None:
    """Each line follows the parameters of its own slot, step after step, until it draws the stop token."""
    choices = itertools.product([0.0, 0.5], [0.0, 0.8], [0.0, 0.05], [1.0, 2.0])
    lines = Lines(*choices, vocabulary=vocabulary)
    for _ in range(3):
        assert all(-2 <= token < vocabulary for token in lines.sample())
        lines.logits = 3 * normal(*lines.logits.shape)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_faulty_line_ends_alone(bad: float) -> None:
    """One logit that is not finite fails its line, in either row; scratch and finished slots are left alone."""
    lines = Lines(*[(0.5, 0.8, 0.0, 1.2)] * 5)
    lines.logits[lines.cond[0], 36] = bad
    lines.logits[lines.uncond[1], 0] = bad
    lines.leads[2] = len(lines.done) - 1
    lines.done[lines.slots[3]] = True
    tokens = lines.sample()
    assert tokens[:4] == [-1, -1, -2, -2]
    assert tokens[4] >= 0
    assert lines.sample()[:4] == [-2] * 4


def test_the_stop_token_ends_its_line_and_the_lowest_id_wins_a_tie() -> None:
    """Greedy lines: one whose best is the stop token, one with all logits equal, one whose penalty decides."""
    lines = Lines(*[(0.0, 0.0, 0.05, 2.0)] * 3)
    lines.seen[:] = False
    lines.logits[:] = 0.0
    lines.logits[lines.cond[0], STOP] = 1.0
    lines.logits[lines.cond[2], 30], lines.logits[lines.cond[2], 11] = 3.0, 2.0
    lines.seen[lines.slots[2], 30] = True
    assert lines.sample() == [STOP, 0, 11]
    assert lines.sample()[0] == -2


def test_processed_scores_may_hold_minus_infinity() -> None:
    """Final scores take neither guidance nor penalty; only NaN, inf and a line of nothing but -inf are at fault."""
    lines = Lines(*[(0.5, 0.8, 0.9, 2.0)] * 4, (0.5, 0.0, 0.9, 2.0))
    lines.logits[:2, torch.arange(VOCABULARY) != 7] = -INF
    lines.logits[1, 7] = -INF
    lines.logits[2, 3], lines.logits[3, 3] = NAN, INF
    tokens = lines.sample(processed=True)
    assert tokens[:4] == [7, -1, -1, -1]
    assert tokens[4] == int(lines.logits[4].argmax())
