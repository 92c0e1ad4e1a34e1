"""Where a benchmark ran: commit, hardware, versions."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "triton", "numba", "numpy", "chatterbox-tts", "transformers", "safetensors", "tokenizers")


def environment(device: torch.device) -> dict[str, Any]:
    """Commit, hardware and versions."""
    describe = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    packages = {each.name: each.version for each in distributions() if each.name in PACKAGES}
    return {
        "commit": subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip() or None,
        "hardware": {
            "device": device_name(device),
            "cpu": device_name(torch.device("cpu")),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30,
        },
        "versions": {"python": platform.python_version(), **packages},
    }


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
