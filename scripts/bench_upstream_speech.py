"""Upstream's side of `bench_serving.py`: whole texts through `ChatterboxTTS.generate`, one after the other."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from bench_load import percentiles
from bench_upstream import memory, release
from make_checkpoint import upstream_s3gen, upstream_t3

from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.options import choose_device
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.weights import TensorFile

WARM_UP_TOKENS = 8


def open_upstream_speech(directory: Path, device: torch.device) -> Any:
    """Upstream's model of a checkpoint, a pruned one of `make_checkpoint.py` too."""
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS  # noqa: PLC0415 - ruff format keeps ours together
    from chatterbox.tts import ChatterboxTTS  # noqa: PLC0415 - same

    config = read_config(TensorFile(directory / ENGLISH.t3))
    size: Literal["full", "tiny"] = "full" if config.dim == 1024 else "tiny"
    with (
        patch.dict(LLAMA_CONFIGS["Llama_520M"], num_hidden_layers=config.layers),
        patch("chatterbox.tts.T3", lambda: upstream_t3(size, config.layers)),
        patch("chatterbox.tts.S3Gen", lambda: upstream_s3gen(size)),
    ):
        return ChatterboxTTS.from_local(directory, device.type)


def measure_upstream_speech(
    directory: Path,
    texts: Sequence[str],
    *,
    device: Literal["auto", "cpu", "cuda"],
    seed: int,
    most_tokens: int | None,
    cfg_weight: float | None,
) -> dict[str, Any]:
    """Seconds and sound of each text, at most so many tokens long; None leaves upstream's own limit and guidance.

    Upstream hands nothing out before all is done, so a text's time is also its time to first audio. It cannot speak
    without guidance (its rows do not fit then), so a weight of 0 leaves its own too.
    """
    with redirect_stdout(sys.stderr), warnings.catch_warnings(action="ignore"):
        where = choose_device(device)
        release(where)
        before = memory(where)
        model = open_upstream_speech(directory, where)
        limit = WARM_UP_TOKENS
        inference = model.t3.inference

        def limited(**asked: Any) -> torch.Tensor:
            most: int = asked.pop("max_new_tokens")
            tokens: torch.Tensor = inference(**asked, max_new_tokens=min(most, limit))
            return tokens

        model.t3.inference = limited
        asked = {"cfg_weight": cfg_weight} if cfg_weight else {}
        rows = []
        with patch("chatterbox.models.t3.t3.tqdm", lambda steps, **_: steps):
            model.generate(texts[0], **asked)
            limit = most_tokens or sys.maxsize
            for number, text in enumerate(texts):
                torch.manual_seed(seed + number)
                began = time.perf_counter()
                audio_s = model.generate(text, **asked).shape[-1] / model.sr  # on the CPU, so all is done
                seconds = time.perf_counter() - began
                rows.append({"seconds": seconds, "audio_s": audio_s, "rtf": seconds / audio_s})
        taken = memory(where) - before
    seconds, audio_s = (sum(row[name] for row in rows) for name in ("seconds", "audio_s"))
    return {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "texts": len(texts),
        "cfg_weight": cfg_weight or None,
        "memory_mib": round(taken / 2**20, 1),
        "seconds": round(seconds, 3),
        "audio_s": round(audio_s, 3),
        "throughput": round(audio_s / seconds, 3),
        "ttfa_ms": percentiles([1000 * row["seconds"] for row in rows], 50, 90, 99),
        "rtf": percentiles([row["rtf"] for row in rows], 50, 90),
        "each": [{name: round(value, 3) for name, value in row.items()} for row in rows],
    }
