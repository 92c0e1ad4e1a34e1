"""Upstream's side of `bench_engine.py`, and the clock and scales that both sides are measured by."""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.config import T3Config
from workers.engine.chatterbox.t3 import read_config
from workers.engine.chatterbox.text import TextTokenizer
from workers.engine.chatterbox.weights import TensorFile, read_conditionals

TEXT = (
    "The morning train was late again, so we walked along the river and talked about the house that she wanted to "
    "build. It would have a garden with apple trees and a wide kitchen table."
)
WARM_UPS = 3
"""Steps before those that are timed."""
PREFILLS = 3
UNDRAWN = -5
"""A stop token that no sampler draws."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What both sides run. `text_tokens` is `TEXT` without start and stop; `tokens` are timed per sequence."""

    directory: Path
    config: T3Config
    text_tokens: list[int]
    tokens: int
    device: torch.device


def write_random_weights(directory: Path, layers: int | None) -> None:
    """The files of a checkpoint that T3 needs, at upstream's full widths."""
    import make_checkpoint  # noqa: PLC0415 - it loads all of chatterbox-tts

    recipe = make_checkpoint.Recipe("full", layers)
    build = make_checkpoint.upstream_t3
    make_checkpoint.write_weights(lambda made: build(made.size, made.layers), directory / ENGLISH.t3, recipe)
    make_checkpoint.write_tokenizer(directory / ENGLISH.tokenizer, recipe)
    make_checkpoint.write_conditionals(directory / ENGLISH.conditionals, recipe)


def read_workload(directory: Path, tokens: int, device: torch.device) -> Workload:
    config = replace(read_config(TensorFile(directory / ENGLISH.t3)), stop_speech=UNDRAWN)
    vocabulary, start, stop = config.text_vocabulary, config.start_text, config.stop_text
    tokenizer = TextTokenizer(directory / ENGLISH.tokenizer, vocabulary=vocabulary, start=start, stop=stop)
    return Workload(directory, config, tokenizer.encode(TEXT, longest=config.longest_text), tokens, device)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory(device: torch.device) -> int:
    """Bytes: on CUDA torch's peak since `release`, on a CPU what is resident now, mapped files left out."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import psutil  # noqa: PLC0415 - of no use to a GPU host

    info = psutil.Process().memory_info()
    return int(info.rss - getattr(info, "shared", 0))


def release(device: torch.device) -> None:
    """Hand back what one side has freed, or it would serve the other."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    elif hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def copy_bandwidth(device: torch.device) -> float:
    """Bytes per second, read and written, of copying a tensor larger than any cache; the median of ten."""
    source = torch.ones(2**31 if device.type == "cuda" else 2**29, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    times = []
    for _ in range(12):
        synchronise(device)
        began = time.perf_counter()
        target.copy_(source)
        synchronise(device)
        times.append(time.perf_counter() - began)
    return 2 * source.nbytes / statistics.median(times[2:])


def p50_ms(times: list[float]) -> float:
    """Milliseconds; the median of what lies between these times in seconds."""
    return round(1000 * statistics.median(after - before for before, after in pairwise(times)), 3)


def open_upstream(work: Workload) -> Callable[[int], list[float]]:
    """Upstream's model as a function: a number of tokens to when it began and had drawn each of them, in seconds."""
    from chatterbox.models.t3.llama_configs import LLAMA_CONFIGS  # noqa: PLC0415 - not needed for our half
    from chatterbox.models.t3.modules.cond_enc import T3Cond  # noqa: PLC0415 - nor this
    from make_checkpoint import upstream_t3  # noqa: PLC0415 - it loads all of chatterbox-tts

    with patch.dict(LLAMA_CONFIGS["Llama_520M"], num_hidden_layers=work.config.layers):
        model: Any = upstream_t3("full" if work.config.dim == 1024 else "tiny", work.config.layers)
    model.load_state_dict(load_file(work.directory / ENGLISH.t3))
    model.to(work.device).eval()
    model.hp.stop_speech_token = UNDRAWN  # `inference` compares each draw with it
    asked = SamplingParameters()
    names = ("temperature", "top_p", "min_p", "repetition_penalty", "cfg_weight")
    parameters = {name: getattr(asked, name) for name in names}
    voice = read_conditionals(work.directory / ENGLISH.conditionals)["t3"]
    speaker, prompt = voice["speaker_emb"], voice["cond_prompt_speech_tokens"]
    emotion = asked.exaggeration * torch.ones(1, 1, 1)
    condition = T3Cond(speaker_emb=speaker, cond_prompt_speech_tokens=prompt, emotion_adv=emotion)
    condition.to(device=work.device)
    text = torch.tensor([[work.config.start_text, *work.text_tokens, work.config.stop_text]] * 2, device=work.device)
    multinomial = torch.multinomial

    def run(tokens: int) -> list[float]:
        draws: list[float] = []

        def draw(probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
            token = multinomial(probabilities, num_samples=num_samples)
            if len(draws) in {0, tokens - 1}:
                synchronise(work.device)
            draws.append(time.perf_counter())
            return token

        silent = patch("chatterbox.models.t3.t3.tqdm", lambda steps, **_: steps)
        with silent, patch("torch.multinomial", draw):
            synchronise(work.device)
            began = time.perf_counter()
            model.inference(t3_cond=condition, text_tokens=text, max_new_tokens=tokens, **parameters)
        assert len(draws) == tokens
        return [began, *draws]

    return run


def measure_upstream(work: Workload) -> dict[str, float]:
    release(work.device)
    before = memory(work.device)
    run = open_upstream(work)
    run(WARM_UPS)
    prefills = [first - began for began, first in (run(1) for _ in range(PREFILLS))]
    times = run(work.tokens + 1)[1:]
    return {
        "tokens_per_s": round(work.tokens / (times[-1] - times[0]), 3),
        "step_ms_p50": p50_ms(times),
        "prefill_ms": round(statistics.median(prefills) * 1000, 2),
        "memory_mib": round((memory(work.device) - before) / 2**20, 1),
    }
