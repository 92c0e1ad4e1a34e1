"""Static key/value slots: all the memory that decoding needs, taken once."""

from __future__ import annotations

import torch
from torch import Tensor

from fleet.startup_errors import EngineUnavailable
from workers.engine.chatterbox.config import T3Config


class KVSlots:
    """Keys and values of `count` slots of `positions` each, and of one more: the scratch slot of dead rows.

    `keys` and `values` are [layers, count + 1, heads, positions, head_dim]. Which slot belongs to whom is the
    scheduler's business.
    """

    def __init__(
        self, config: T3Config, *, count: int, positions: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        shape = (config.layers, count + 1, config.heads, positions, config.head_dim)
        self.keys = torch.empty(shape, device=device, dtype=dtype)
        self.values = torch.empty(shape, device=device, dtype=dtype)
        self.count = count
        self.positions = positions

    @property
    def scratch(self) -> int:
        """The slot that rows without a sequence read and write."""
        return self.count

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def layer(self, number: int) -> tuple[Tensor, Tensor]:
        return self.keys[number], self.values[number]


def bytes_per_slot(config: T3Config, positions: int, dtype: torch.dtype) -> int:
    """Keys and values of one slot over all layers: 120 KiB per position for the full model in bfloat16."""
    return 2 * config.layers * config.heads * positions * config.head_dim * dtype.itemsize


def slots_that_fit(
    config: T3Config, *, positions: int, device: torch.device, dtype: torch.dtype, share: float, most: int
) -> int:
    """How many slots `share` of the device's free memory holds, at most `most`, the scratch slot not counted.

    Raises `EngineUnavailable` when there is no room for one sequence with guidance.
    """
    free = _free_bytes(device)
    each = bytes_per_slot(config, positions, dtype)
    fitting = int(free * share) // each - 1
    if fitting < 2:
        raise EngineUnavailable(
            f"{free >> 20} MiB are free on {device}; one sequence with guidance, at memory_share {share:g}, "
            f"needs {3 * each / share / 2**20:.0f}"
        )
    return min(fitting, most)


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    import psutil  # noqa: PLC0415 - of no use to a GPU host

    return psutil.virtual_memory().available
