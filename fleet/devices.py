"""Which GPUs this process may use, asked of the driver's own tool so that nothing here needs CUDA or torch."""

from __future__ import annotations

import os
import subprocess


def visible_gpus() -> list[str]:
    """What to put into `CUDA_VISIBLE_DEVICES` for each usable GPU: an index or a UUID; none without a driver.

    An existing `CUDA_VISIBLE_DEVICES` narrows the list as CUDA itself does: an unknown entry hides what follows it.
    """
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    present = dict(line.split(", ", 1) for line in listing.splitlines() if ", " in line)
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return list(present)
    usable = []
    for entry in wanted.split(","):
        if entry.strip() not in {*present, *present.values()}:
            break
        usable.append(entry.strip())
    return usable
