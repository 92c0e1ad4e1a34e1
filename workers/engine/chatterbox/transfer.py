"""From the host to the device without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def staged(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor in memory that the device can read by itself; pageable memory would make the host wait.

    torch keeps pinned memory until the copies from it are done, so the tensor may be dropped at once.
    """
    return tensor.pin_memory() if device.type == "cuda" else tensor


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """The same numbers on the device."""
    return staged(tensor, device).to(device, non_blocking=True)
