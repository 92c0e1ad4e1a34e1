"""One request's state, from its text tokens to its speech tokens. No torch: the scheduler is tested without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from fleet.errors import FleetError
from workers.engine.base import SamplingParameters


class Stage(Enum):
    """Where a sequence is on its way."""

    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    FINISHED = "finished"


class Finish(Enum):
    """Why a sequence ended."""

    STOP = "stop"
    """The model drew its end-of-speech token."""
    LENGTH = "length"
    """`max_tokens` were drawn."""
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(eq=False, slots=True)
class Sequence:
    """One segment of text being turned into speech tokens.

    `prompt_positions` counts what is prefilled before the first step, `prefilled` how much of it is done. `launched`
    counts decode steps handed to the device, which may be ahead of `tokens`, what the host has read. `slots` holds one
    place in the KV cache, or two with classifier-free guidance: conditional first. `due` is when its first token is
    wanted, by any clock that all sequences share. `voice` and `prompt`, what it is computed to, belong to the engine.
    """

    id: str
    text_tokens: list[int]
    prompt_positions: int
    max_tokens: int
    seed: int
    parameters: SamplingParameters
    due: float = 0.0
    voice: Any = None
    prompt: Any = None
    stage: Stage = Stage.WAITING
    slots: tuple[int, ...] = ()
    prefilled: int = 0
    launched: int = 0
    tokens: list[int] = field(default_factory=list)
    finish: Finish | None = None
    error: FleetError | None = None

    @property
    def rows(self) -> int:
        """Lines of the batch this sequence takes: without guidance there is no unconditional one."""
        return 2 if self.parameters.cfg_weight > 0 else 1

    @property
    def finished(self) -> bool:
        return self.stage is Stage.FINISHED
