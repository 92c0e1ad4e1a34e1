"""Recordings read from files, as upstream's librosa.load reads them."""

from __future__ import annotations

from pathlib import Path

import librosa
import numpy as np

from fleet.errors import InvalidValue
from workers.engine.base import Recording


def read_recording(path: Path) -> Recording:
    """The sound of a file as mono float32 at the file's own rate. Raises `InvalidValue` when it cannot be read."""
    try:
        samples, rate = librosa.load(path, sr=None, mono=True)
    except Exception as error:
        reason = str(error) or "no decoder knows its format"
        raise InvalidValue(f"{path} cannot be read as sound: {reason}", param="audio_prompt_path") from error
    return Recording(np.asarray(samples, dtype=np.float32), int(rate))
