"""Speech tokens to mel frames: what S3Gen computes for many requests at once.

The flow of upstream's CausalConditionalCFM: an ordinary differential equation from noise to mel frames, solved by
Euler's method with steps that begin small (cosine schedule) and classifier-free guidance within the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.engine.base import Quality
from workers.engine.chatterbox.conditionals import DevicePrompt
from workers.engine.chatterbox.estimator import MEL, Estimator
from workers.engine.chatterbox.graphs import CapturedCall, GraphPool
from workers.engine.chatterbox.hift import Hift
from workers.engine.chatterbox.hops import FRAMES_PER_TOKEN, LOOKAHEAD
from workers.engine.chatterbox.layers import Loader
from workers.engine.chatterbox.noise import normal
from workers.engine.chatterbox.token_encoder import TokenEncoder
from workers.engine.chatterbox.transfer import upload
from workers.engine.chatterbox.weights import TensorFile

_GUIDANCE = 0.7
_MEL_STREAM = 1
"""Of noise.py."""

_X_VECTOR = 192


def steps_of(quality: Quality, standard: int) -> int:
    """Euler steps of a quality: half the standard number, rounded up, for a draft; twice for the highest."""
    return {"draft": -(-standard // 2), "standard": standard, "high": 2 * standard}[quality]


@dataclass(frozen=True, slots=True)
class FlowInput:
    """Tokens of one request to be made into mel frames behind its voice's prompt.

    `first_token` is the place of the first one in its stream, which its noise depends on. Unless they are the `last`,
    the `LOOKAHEAD` newest tokens are only looked at.
    """

    prompt: DevicePrompt
    tokens: Sequence[int]
    first_token: int
    last: bool
    seed: int

    @property
    def length(self) -> int:
        """Tokens that go into the encoder."""
        return len(self.prompt.tokens) + len(self.tokens)

    @property
    def frames(self) -> int:
        """Mel frames that are solved for, the prompt's among them."""
        return FRAMES_PER_TOKEN * (self.length - (0 if self.last else LOOKAHEAD))


class S3Gen:
    """The stages behind the speech tokens. The encoder and the vocoder compute in float32, the estimator in `dtype`.

    `steps` is the standard number of Euler steps, `longest` the largest number of tokens of a prompt and a text
    together. Raises `ModelInvalid`, naming what the checkpoint lacks.
    """

    def __init__(
        self, file: TensorFile, *, device: torch.device, dtype: torch.dtype, steps: int = 10, longest: int = 1250
    ) -> None:
        self.device = device
        self.longest = longest
        load = Loader(file, "flow.", device, torch.float32)
        self._encoder = TokenEncoder(load, longest=longest)
        self._speaker = load.tensor("spk_embed_affine_layer.weight", MEL, _X_VECTOR)
        self._speaker_bias = load.tensor("spk_embed_affine_layer.bias", MEL)
        self.estimator = Estimator(file, device=device, dtype=dtype)
        self.hift = Hift(file, device)
        self.counts: Mapping[Quality, int] = {
            "draft": steps_of("draft", steps),
            "standard": steps,
            "high": steps_of("high", steps),
        }
        self.solver = Solver.of(self.counts, self.estimator, device)

    def encode(self, inputs: Sequence[FlowInput]) -> list[Tensor]:
        """What stays the same over all steps of each input, float32 [frames, 240].

        The channels are the tokens' mean, the speaker and the prompt's mel, as the estimator takes them.
        """
        longest = max(one.length for one in inputs)
        lengths = upload(torch.tensor([one.length for one in inputs]), self.device)
        tokens = torch.zeros(len(inputs), longest, dtype=torch.int64, device=self.device)
        for row, one in enumerate(inputs):
            prompt = len(one.prompt.tokens)
            tokens[row, :prompt] = one.prompt.tokens
            tokens[row, prompt : one.length] = upload(torch.tensor(one.tokens, dtype=torch.int64), self.device)
        means = self._encoder(tokens, lengths)
        fixed = []
        for mean, one in zip(means, inputs, strict=True):
            x_vector = F.normalize(one.prompt.embedding, dim=0)
            speaker = F.linear(x_vector, self._speaker, self._speaker_bias).expand(one.frames, MEL)
            given = F.pad(one.prompt.mel, (0, 0, 0, one.frames - len(one.prompt.mel)))
            fixed.append(torch.cat([mean[: one.frames], speaker, given], dim=1))
        return fixed

    def noise(self, one: FlowInput) -> Tensor:
        """Where the solver begins, float32 [frames, 80]: of the seed and each frame's place in the stream.

        The prompt's frames are counted down from 0, so that they get the same noise in front of every part of a stream.
        """
        prompt = FRAMES_PER_TOKEN * len(one.prompt.tokens)
        frames = torch.arange(one.frames, device=self.device) - prompt
        frames = torch.where(frames < 0, frames, frames + FRAMES_PER_TOKEN * one.first_token)
        seed = torch.full((1,), one.seed, dtype=torch.int64, device=self.device)
        return normal(seed, frames[None], MEL, stream=_MEL_STREAM)[0]

    def mel(self, inputs: Sequence[FlowInput], quality: Quality = "standard") -> list[Tensor]:
        """Mel frames [frames, 80] behind the prompts, all solved at once from beginning to end."""
        batch = EulerBatch(self, max(one.frames for one in inputs), len(inputs), ragged=len(inputs) > 1)
        rows = [
            batch.place(fixed, self.noise(one), quality) for one, fixed in zip(inputs, self.encode(inputs), strict=True)
        ]
        for _ in range(self.counts[quality]):
            batch.step(rows)
        return [
            batch.take(row, one.frames)[FRAMES_PER_TOKEN * len(one.prompt.tokens) :]
            for row, one in zip(rows, inputs, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Solver:
    """All moments at which a velocity is asked for, of all qualities one behind the other, and one at which nothing is.

    `times` [moments, blocks, dim] are the moments as embedded, `widths` [moments] the steps' lengths; `first` is the
    place of each quality's first moment, and the last place of all belongs to rows that stand still.
    """

    times: Tensor
    widths: Tensor
    first: Mapping[Quality, int]

    @classmethod
    def of(cls, counts: Mapping[Quality, int], estimator: Estimator, device: torch.device) -> Solver:
        moments: list[Tensor] = []
        widths: list[Tensor] = []
        first: dict[Quality, int] = {}
        for quality, count in counts.items():
            edges = 1 - torch.cos(torch.linspace(0, 1, count + 1) * 0.5 * torch.pi)
            first[quality] = sum(map(len, moments))
            moments.append(edges[:-1])
            widths.append(edges.diff())
        still = torch.zeros(1)
        return cls(estimator.embed_times(torch.cat([*moments, still])), torch.cat([*widths, still]).to(device), first)

    @property
    def still(self) -> int:
        return len(self.widths) - 1


class EulerBatch:
    """Rows of `frames` mel frames that are solved together, each at its own step of its own quality.

    Rows come and go between steps. A `ragged` batch may hold rows of fewer frames. With a pool, `capture` records the
    step for a number of rows, and fewer are padded to it.
    """

    def __init__(
        self, s3gen: S3Gen, frames: int, capacity: int, *, ragged: bool, pool: GraphPool | None = None
    ) -> None:
        self._estimator, self._solver = s3gen.estimator, s3gen.solver
        self._device = device = s3gen.device
        self._pool = pool
        self.frames = frames
        self.capacity = capacity
        self._x = torch.zeros(capacity + 1, frames, MEL, device=device)
        self._fixed = torch.zeros(capacity + 1, frames, 3 * MEL, device=device, dtype=s3gen.estimator.dtype)
        self._lengths = torch.full((capacity + 1,), frames, dtype=torch.int64, device=device) if ragged else None
        self._moments = torch.full((capacity + 1,), self._solver.still, dtype=torch.int64, device=device)
        self._free = list(range(capacity))
        self._graphs: dict[int, tuple[CapturedCall, Tensor]] = {}
        self.replays = 0

    @property
    def free(self) -> int:
        """Rows that may still come."""
        return len(self._free)

    @property
    def empty(self) -> bool:
        return len(self._free) == self.capacity

    def place(self, fixed: Tensor, noise: Tensor, quality: Quality) -> int:
        """Take in one row, float32 [n, 240] and [n, 80]; its number."""
        row = self._free[-1]
        length = len(noise)
        self._x[row, :length] = noise
        self._x[row, length:] = 0
        self._fixed[row, :length] = fixed.to(self._fixed.dtype)
        self._fixed[row, length:] = 0
        if self._lengths is not None:
            self._lengths[row].fill_(length)
        self._moments[row].fill_(self._solver.first[quality])
        return self._free.pop()

    def take(self, row: int, length: int) -> Tensor:
        """What has become of a row's first `length` frames; the row is free again."""
        found = self._x[row, :length].clone()
        self.drop(row)
        return found

    def drop(self, row: int) -> None:
        """Free a row; one that is free stays so."""
        if row not in self._free:
            self._free.append(row)

    def step(self, rows: Sequence[int]) -> bool:
        """One Euler step of each of these rows; whether a graph was replayed."""
        size = min((size for size in self._graphs if size >= len(rows)), default=None)
        if size is None:
            self._advance(upload(torch.tensor(rows), self._device))
            return False
        graph, where = self._graphs[size]
        where.copy_(upload(torch.tensor([*rows, *[self.capacity] * (size - len(rows))]), self._device))
        graph()
        self.replays += 1
        return True

    def capture(self, size: int) -> None:
        """Record a step of `size` rows; without a pool, on a CPU, this does nothing."""
        if self._pool is None or size in self._graphs:
            return
        where = torch.full((size,), self.capacity, dtype=torch.int64, device=self._device)
        self._graphs[size] = (CapturedCall(partial(self._advance, where), self._pool), where)

    def _advance(self, rows: Tensor) -> None:
        x, moments = self._x[rows], self._moments[rows]
        noisy = x.to(self._estimator.dtype)
        given = self._fixed[rows]
        both = torch.cat([torch.cat([noisy, given], dim=-1), F.pad(noisy, (0, 3 * MEL))])
        times = self._solver.times[moments]
        lengths = None if self._lengths is None else self._lengths[rows].repeat(2)
        velocity, unguided = self._estimator(both, times.repeat(2, 1, 1), lengths).float().chunk(2)
        velocity = (1 + _GUIDANCE) * velocity - _GUIDANCE * unguided
        self._x[rows] = x + self._solver.widths[moments][:, None, None] * velocity
        self._moments[rows] = (moments + 1).clamp_(max=self._solver.still)
