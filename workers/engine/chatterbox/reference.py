"""Reference recordings made into conditionals, as upstream does it, always on the CPU in float32."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fleet.errors import InvalidValue
from fleet.startup_errors import ModelMissing
from workers.engine.base import Recording
from workers.engine.chatterbox.checkpoint import ENGLISH, CheckpointFiles
from workers.engine.chatterbox.conditionals import ReferencePrompt, VoiceConditionals
from workers.engine.chatterbox.config import T3Config
from workers.engine.chatterbox.prompt import SpeakerPrompt

if TYPE_CHECKING:
    from workers.engine.chatterbox.reference_models import ReferenceModels

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
"""Hz."""

SHORTEST_S, LONGEST_S = 1.0, 300.0
"""Of the longest recording; of all together."""

_SHORTEST_PART_S = 0.1
"""Of any recording: the voice encoder's spectrum needs 200 samples at 16 kHz."""

_SILENCE = 1e-3
"""Peak, -60 dBFS."""

_LOUDEST = 100.0
"""Peak; within it no power of a spectrum overflows. Sound not scaled to ±1 is far above."""

_PLACES, _PLACE_BYTES = 64, 64 * 2**10


def checked_recordings(recordings: Sequence[Recording]) -> list[Recording]:
    """The same with samples that are contiguous float32. Raises `InvalidValue`, saying which recording is wrong."""
    if not recordings:
        raise InvalidValue("a voice needs at least one recording", param="file")
    found = []
    for number, recording in enumerate(recordings, start=1):
        name = "the recording" if len(recordings) == 1 else f"recording {number}"
        try:
            found.append(_checked(recording))
        except ValueError as error:
            raise InvalidValue(f"{name} {error}", param="file") from None
    durations = [_duration(recording) for recording in found]
    if sum(durations) > LONGEST_S:
        raise InvalidValue(
            f"the recordings are {sum(durations):.1f} s long together; they may be {LONGEST_S:.0f} s", param="file"
        )
    if max(durations) < SHORTEST_S:
        raise InvalidValue(
            f"the longest recording is {max(durations):.2f} s long; it must be at least {SHORTEST_S:.1f} s",
            param="file",
        )
    return found


def _duration(recording: Recording) -> float:
    return len(recording.samples) / recording.sample_rate


def _checked(recording: Recording) -> Recording:
    """Raises ValueError with the rest of a sentence that begins with the recording."""
    if not LOWEST_RATE <= recording.sample_rate <= HIGHEST_RATE:
        raise ValueError(f"has {recording.sample_rate} samples a second; {LOWEST_RATE} to {HIGHEST_RATE} are taken")
    samples = np.asarray(recording.samples)
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise ValueError(f"must be one row of floating-point samples, not {samples.dtype} {list(samples.shape)}")
    samples = np.ascontiguousarray(samples, np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("holds samples that are not finite")
    if len(samples) < _SHORTEST_PART_S * recording.sample_rate:
        raise ValueError(f"has {len(samples)} samples; {_SHORTEST_PART_S} s are the least of any")
    peak = float(np.abs(samples).max())
    if peak < _SILENCE:
        raise ValueError(f"is silent: its peak of {peak:.1e} is below -60 dB of full scale")
    if peak > _LOUDEST:
        raise ValueError(f"has a peak of {peak:.1e}; full scale is 1")
    return Recording(samples, recording.sample_rate)


def model_revision(directory: Path, files: CheckpointFiles = ENGLISH) -> str:
    """16 hex digits that differ between models that measure a voice differently.

    Of the headers, the sizes and 64 samples of 64 KiB of each file's values: fine-tunes differ in values alone, and all
    of a gigabyte would take seconds. Raises `ModelMissing`.
    """
    digest = hashlib.sha256()
    for name in (files.voice_encoder, files.s3gen):
        path = directory / name
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                header = min(size, 8 + int.from_bytes(file.read(8), "little"))
                file.seek(0)
                digest.update(f"{name} {size}\n".encode())
                digest.update(file.read(header))
                for place in range(_PLACES):
                    file.seek(header + max(0, size - header - _PLACE_BYTES) * place // (_PLACES - 1))
                    digest.update(file.read(_PLACE_BYTES))
        except OSError as error:
            raise ModelMissing(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:16]


class ReferenceEncoder:
    """Computes conditionals as `ChatterboxTTS.prepare_conditionals` does, from any thread, one call at a time.

    On the CPU in float32 whatever the engine's device, so that workers with other GPUs make the same of a recording.
    The checkpoint is read at the first use; `load` does so sooner. Raises `ModelMissing` or `ModelInvalid`.
    """

    def __init__(self, directory: Path, config: T3Config, files: CheckpointFiles = ENGLISH) -> None:
        self._directory = directory
        self._files = files
        self._lock = threading.Lock()
        self._models: ReferenceModels | None = None
        self._revision: str | None = None
        self.config = config

    @property
    def revision(self) -> str:
        if self._revision is None:
            self._revision = model_revision(self._directory, self._files)
        return self._revision

    def load(self) -> None:
        with self._lock:
            self._loaded()

    def encode(self, recordings: Sequence[Recording]) -> VoiceConditionals:
        """One voice of all recordings; the longest gives the tokens, the mel and the x-vector.

        Raises `InvalidValue` for recordings that are silent, too short, too long, or no sound at all.
        """
        recordings = checked_recordings(recordings)
        with self._lock:
            found = self._loaded().measure(recordings, self.config.longest_prompt)
        try:
            return VoiceConditionals.of(
                SpeakerPrompt.checked(found.speaker.clone(), found.t3_tokens, self.config),
                ReferencePrompt.checked(found.gen_tokens, found.mel, found.x_vector),
            )
        except InvalidValue as error:
            raise InvalidValue(f"the recordings cannot be measured: {error}", param="file") from error

    def _loaded(self) -> ReferenceModels:
        if self._models is None:
            # Upstream's package takes 7 s to import, which a worker that only speaks known voices does without.
            from workers.engine.chatterbox.reference_models import ReferenceModels  # noqa: PLC0415 - see above

            self._models = ReferenceModels(self._directory, self._files)
        return self._models
