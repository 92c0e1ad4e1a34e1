#!/usr/bin/env python3
"""Measure upstream's `generate` and ours on the same weights, text and recording, in one run.

`scripts/bench_generate.py` writes random weights of the published model's sizes to a temporary directory, unless
`--checkpoint` names one. It prints a table and writes benchmarks/results/generate-DEVICE-DATE.json, without network.

Every text is spoken with `--tokens` speech tokens, 25 for each second; random weights also draw tokens that are no
speech and are dropped, on both sides alike, so times are given per second of sound (RTF). Upstream runs in float32
before and after ours: machines are shared. Each side has loaded everything and is called twice with the same recording,
10 s long: `first` includes the voice, `again` is the second call, for which upstream computes the voice once more and
we do not. Ours is also measured with several texts at once and one after the other, and streaming, to the first sound.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from bench_environment import ROOT, environment
from bench_upstream import TEXT, UNDRAWN, release, synchronise

from workers.engine.chatterbox.options import EngineOptions, SpeechOptions, choose_device
from workers.engine.chatterbox.tts import ChatterboxTTS

RATE = 24_000
Figures = dict[str, Any]


def write_recording(path: Path, seconds: float = 10.0) -> None:
    """Something with a voice's harmonics: a tone that glides between 110 and 190 Hz, in syllables."""
    times = np.arange(round(seconds * RATE)) / RATE
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 0.6 * times)) / RATE
    sound = sum(np.sin(n * phase) / n for n in range(1, 30)) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * times))
    noise = np.random.default_rng(0).standard_normal(len(times))
    soundfile.write(path, 0.1 * sound + 0.003 * noise, RATE)


def timed(call: Any, device: torch.device) -> Figures:
    """Seconds of a call that returns sound [1, n], and seconds of its sound."""
    synchronise(device)
    began = time.perf_counter()
    sound = call()
    synchronise(device)
    seconds, heard = time.perf_counter() - began, sound.shape[-1] / RATE
    return {"seconds": round(seconds, 3), "audio_s": round(heard, 3), "rtf": round(seconds / heard, 3)}


def measure_upstream(directory: Path, recording: Path, tokens: int, device: torch.device) -> Figures:
    from chatterbox.tts import ChatterboxTTS as Upstream  # noqa: PLC0415 - not needed for our half
    from make_checkpoint import upstream_s3gen, upstream_t3  # noqa: PLC0415 - nor this

    tiny = (directory / "t3_cfg.safetensors").stat().st_size < 10**8
    size: Literal["tiny", "full"] = "tiny" if tiny else "full"
    with (
        patch("chatterbox.tts.T3", lambda: upstream_t3(size)),
        patch("chatterbox.tts.S3Gen", lambda: upstream_s3gen(size)),
    ):
        model: Any = Upstream.from_local(directory, device.type)
    model.t3.hp.stop_speech_token = UNDRAWN
    inference = model.t3.inference
    model.t3.inference = lambda **asked: inference(**{**asked, "max_new_tokens": tokens})
    found: Figures = {}
    with patch("chatterbox.models.t3.t3.tqdm", lambda steps, **_: steps):
        model.generate(TEXT)  # compiles and allocates
        for name in ("first", "again"):
            found[name] = timed(lambda: model.generate(TEXT, audio_prompt_path=str(recording)), device)
    began = time.perf_counter()
    model.prepare_conditionals(str(recording))
    found["conditioning_s"] = round(time.perf_counter() - began, 3)
    return found


def measure_ours(
    directory: Path, recording: Path, tokens: int, device: torch.device, *, precision: Any, batch: int
) -> Figures:
    options = EngineOptions(precision=precision, max_rows=max(16, 2 * batch))
    speech = SpeechOptions(max_tokens=tokens)
    with ChatterboxTTS.from_local(directory, device, tokens=options, speech=speech) as tts:
        engine: Any = tts.engine
        config = engine._tokens.config  # noqa: SLF001 - so that neither side stops early
        engine._tokens.config = replace(config, stop_speech=UNDRAWN)  # noqa: SLF001 - same
        tts.generate(TEXT, seed=0)
        tts.clone_voice([recording, recording])  # another voice: reads the models that measure one
        found: Figures = {"precision": precision, "first_sound_s": round(engine.capabilities.first_sound_s, 3)}
        for name in ("first", "again"):
            found[name] = timed(lambda: tts.generate(TEXT, audio_prompt_path=recording, seed=1), device)
        found["conditioning"] = {
            "computed": engine.figures().conditionals_computed,
            "hits": engine.figures().conditionals_hits,
        }
        began = time.perf_counter()
        tts.clone_voice(recording)
        found["conditioning_again_s"] = round(time.perf_counter() - began, 4)
        requests: list[Figures] = [{"text": TEXT, "seed": seed} for seed in range(batch)]
        one_by_one = timed(lambda: torch.cat([tts.generate(**each) for each in requests], dim=1), device)
        together = timed(lambda: torch.cat(tts.generate_many(requests), dim=1), device)
        found |= {"one_by_one": one_by_one, "together": together, "batch": batch}
        began = time.perf_counter()
        chunks = iter(tts.generate_stream(TEXT, seed=1))
        first = next(chunks)
        found["ttfa_s"] = round(time.perf_counter() - began, 3)
        heard = first.shape[-1] + sum(chunk.shape[-1] for chunk in chunks)
        seconds = time.perf_counter() - began
        found["streamed"] = {"seconds": round(seconds, 3), "audio_s": heard / RATE, "rtf": seconds * RATE / heard}
        for quality in ("draft", "high"):
            found[quality] = timed(lambda: tts.generate(TEXT, seed=1, quality=quality), device)  # noqa: B023 - called at once
    return found


def show(result: Figures) -> None:
    table = Table(
        "", "voice and text", "same voice again", "batch, each alone", "batch together", "streamed", "TTFA, s"
    )
    for name, half in zip(("upstream before", "upstream after"), result["upstream"], strict=False):
        table.add_row(name, f"{half['first']['rtf']:.2f}", f"{half['again']['rtf']:.2f}")
    for ours in result["ours"]:
        names = ("first", "again", "one_by_one", "together", "streamed")
        table.add_row(f"ours {ours['precision']}", *(f"{ours[n]['rtf']:.2f}" for n in names), f"{ours['ttfa_s']:.2f}")
    Console().print("seconds of computing for each second of sound (RTF)", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--checkpoint", type=Path, metavar="DIR")
    parser.add_argument("--precisions", default="fp32,bf16", help="of ours")
    parser.add_argument("--tokens", type=int, default=60, metavar="N")
    parser.add_argument("--batch", type=int, default=4, metavar="N")
    parser.add_argument("--no-upstream", action="store_false", dest="upstream")
    parser.add_argument("--output", type=Path, metavar="PATH")
    options = parser.parse_args()
    device = choose_device(options.device)
    warnings.filterwarnings("ignore")  # upstream's dependencies deprecate much
    with tempfile.TemporaryDirectory() as made:
        directory: Path = options.checkpoint or Path(made) / "full"
        if options.checkpoint is None:
            import make_checkpoint  # noqa: PLC0415 - it loads all of chatterbox-tts

            make_checkpoint.write_checkpoint(directory, size="full")
        recording = Path(made) / "voice.wav"
        write_recording(recording)
        result: Figures = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join(["scripts/bench_generate.py", *sys.argv[1:]]),
            **environment(device),
            "tokens": options.tokens,
            "upstream": [],
            "ours": [],
        }
        for half in range(2):
            if options.upstream:
                result["upstream"].append(measure_upstream(directory, recording, options.tokens, device))
                print(result["upstream"][-1], file=sys.stderr, flush=True)
                release(device)
            for precision in options.precisions.split(",") if half == 0 else ():
                result["ours"].append(
                    measure_ours(directory, recording, options.tokens, device, precision=precision, batch=options.batch)
                )
                print(result["ours"][-1], file=sys.stderr, flush=True)
                release(device)
    target: Path = options.output or ROOT / f"benchmarks/results/generate-{device.type}-{result['date'][:10]}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
