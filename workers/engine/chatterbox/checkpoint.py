"""Which files a checkpoint is made of. No torch: a worker without it looks for them too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fleet.startup_errors import ModelMissing


@dataclass(frozen=True, slots=True)
class CheckpointFiles:
    """Upstream's names for the files of one model."""

    t3: str
    s3gen: str
    voice_encoder: str
    tokenizer: str
    conditionals: str

    @property
    def all(self) -> tuple[str, ...]:
        return (self.t3, self.s3gen, self.voice_encoder, self.tokenizer, self.conditionals)


ENGLISH = CheckpointFiles(
    t3="t3_cfg.safetensors",
    s3gen="s3gen.safetensors",
    voice_encoder="ve.safetensors",
    tokenizer="tokenizer.json",
    conditionals="conds.pt",
)


def check_directory(directory: Path, files: CheckpointFiles = ENGLISH) -> None:
    """Raise `ModelMissing`, naming what is not there."""
    if not directory.is_dir():
        raise ModelMissing(f"no checkpoint: {directory} is not a directory")
    missing = [name for name in files.all if not (directory / name).is_file()]
    if missing:
        raise ModelMissing(f"the checkpoint {directory} lacks {', '.join(missing)}")
