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
from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS
from chatterbox.tts import ChatterboxTTS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from bench_upstream import memory, release
from make_checkpoint import upstream_s3gen, upstream_t3

from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.options import choose_device
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.weights import TensorFile

WARM_UP_TOKENS = 8


def open_upstream_speech(directory: Path, device: torch.device) -> Any:
    """Upstream's model of a checkpoint, a pruned one of `make_checkpoint.py` too."""
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
    max_tokens: int | None,
    cfg_weight: float | None,
) -> dict[str, Any]:
    """Seconds and sound of each text, at most so many tokens long; None leaves upstream's own limit and guidance.

    It cannot speak without guidance, since its rows do not fit then, so a weight of 0 leaves its own too.
    """
    with redirect_stdout(sys.stderr), warnings.catch_warnings(action="ignore"):
        where = choose_device(device)
        release(where)
        before = memory(where)
        model = open_upstream_speech(directory, where)
        inference, limit = model.t3.inference, {"max_new_tokens": WARM_UP_TOKENS}
        model.t3.inference = lambda **asked: inference(**{**asked, **limit})
        asked = {"cfg_weight": cfg_weight} if cfg_weight else {}
        rows = []
        with patch("chatterbox.models.t3.t3.tqdm", lambda steps, **_: steps):
            model.generate(texts[0], **asked)
            limit = {} if max_tokens is None else {"max_new_tokens": max_tokens}
            for number, text in enumerate(texts):
                torch.manual_seed(seed + number)
                began = time.perf_counter()
                audio_s = model.generate(text, **asked).shape[-1] / model.sr  # on the CPU, so all is done
                seconds = time.perf_counter() - began
                rows.append({"seconds": round(seconds, 4), "audio_s": round(audio_s, 4)})
        taken = memory(where) - before
    return {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu",
        "memory_mib": round(taken / 2**20, 1),
        "each": rows,
    }
