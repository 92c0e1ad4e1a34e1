#!/usr/bin/env python3
"""Measure upstream's T3 and our token engine on the same weights, text and voice, in one run.

`scripts/bench_engine.py` writes random weights of the published model's sizes to a temporary directory, unless
`--checkpoint` names one with T3, tokenizer.json and conds.pt. It prints a table and writes
benchmarks/results/engine-DEVICE-DATE.json, with the number of layers if `--layers` pruned it. It needs no network.

Decoding is timed without prefill, and neither side stops at end-of-speech. Upstream runs its own loop in float32, one
stream with guidance (two rows), before and after ours, and the mean counts: machines are shared. `prefill_ms` is the
time to the first drawn token, from the text's tokens with the voice encoded each time (upstream), or from the text with
the voice cached (ours). `roofline_share` is the time that a step's bytes (weights once, keys and values of all rows)
take at the bandwidth of a copy, read and written bytes counted, over the time that the step took. `memory_mib`, with
weights and all slots, is the peak that torch allocated on CUDA; on a CPU what became resident by the end, files apart.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # runs in a checkout that is not installed

from bench_environment import ROOT, environment
from bench_upstream import (
    PREFILLS,
    TEXT,
    WARM_UPS,
    Workload,
    copy_bandwidth,
    measure_upstream,
    memory,
    p50_ms,
    read_workload,
    release,
    synchronise,
    write_random_weights,
)

from fleet.startup_errors import EngineUnavailable
from workers.engine.base import SamplingParameters
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.kernels import AttentionName
from workers.engine.chatterbox.kv_cache import bytes_per_slot
from workers.engine.chatterbox.options import EngineOptions, choose_device
from workers.engine.chatterbox.prompt import SpeakerPrompt
from workers.engine.chatterbox.sequence import Finish, Sequence, Stage
from workers.engine.chatterbox.token_engine import TokenEngine
from workers.engine.chatterbox.weights import TensorFile, read_conditionals


@dataclass(frozen=True, slots=True)
class Measurement:
    """Timed decode steps of `streams` sequences at once; `bytes_per_step` is computed, at the rows' mean length."""

    streams: int
    tokens_per_s: float
    steps_per_s: float
    step_ms_p50: float
    bytes_per_step: int
    replays: int
    eager_steps: int


def open_engine(work: Workload, **options: Any) -> TokenEngine:
    """Ours, with slots as long as the prompt and the tokens."""
    file = TensorFile(work.directory / ENGLISH.t3)
    found = read_conditionals(work.directory / ENGLISH.conditionals)["t3"]
    voice = SpeakerPrompt.checked(found["speaker_emb"], found["cond_prompt_speech_tokens"], work.config)
    most = work.config.prompt_positions(len(work.text_tokens)) + WARM_UPS + work.tokens
    chosen = EngineOptions(positions=-(-most // 64) * 64, memory_share=0.8, **options)
    with patch("workers.engine.chatterbox.token_engine.read_config", lambda _: work.config):
        engine = TokenEngine(file, work.directory / ENGLISH.tokenizer, voice, chosen)
    engine.capture()
    return engine


def finish(engine: TokenEngine, sequences: list[Sequence]) -> None:
    """Run to the end, and make sure that every token counted was drawn."""
    engine.run()
    for sequence in sequences:
        if sequence.finish is not Finish.LENGTH:
            raise SystemExit(f"{sequence.id} ended early: {sequence.error or sequence.finish}")


def prefill_seconds(engine: TokenEngine) -> float:
    """From a text to its first token: the tick that ends a prefill also takes the first step."""
    synchronise(engine.device)
    began = time.perf_counter()
    sequence = engine.add("prefill", TEXT, parameters=SamplingParameters(seed=0), max_tokens=1)
    while not sequence.launched:
        engine.tick()
    synchronise(engine.device)
    seconds = time.perf_counter() - began
    finish(engine, [sequence])
    return seconds


def decode(engine: TokenEngine, streams: int, steps: int) -> Measurement:
    """Time `steps` of sequences that have all been prefilled."""
    length = WARM_UPS + steps
    asked = [SamplingParameters(seed=seed) for seed in range(streams)]
    sequences = [engine.add(f"stream {p.seed}", TEXT, parameters=p, max_tokens=length) for p in asked]
    for sequence in sequences:
        sequence.launched = length  # so that none decodes while others are prefilled
    while any(sequence.stage is not Stage.DECODING for sequence in sequences):
        engine.tick()
    for sequence in sequences:
        sequence.launched = 0
    for _ in range(WARM_UPS):
        engine.tick()
    rows = sum(sequence.rows for sequence in sequences)
    position_bytes = bytes_per_slot(engine.config, 1, engine.dtype)
    mean_length = sequences[0].prompt_positions + WARM_UPS + (steps + 1) / 2
    replays, eager_steps = engine.steps.replays, engine.steps.eager_steps
    synchronise(engine.device)
    times = [time.perf_counter()]
    for _ in range(steps):
        engine.tick()
        times.append(time.perf_counter())
    synchronise(engine.device)
    seconds = time.perf_counter() - times[0]
    measurement = Measurement(
        streams=streams,
        tokens_per_s=round(streams * steps / seconds, 3),
        steps_per_s=round(steps / seconds, 3),
        step_ms_p50=p50_ms(times),
        bytes_per_step=engine.t3.weight_bytes + int(rows * mean_length * position_bytes),
        replays=engine.steps.replays - replays,
        eager_steps=engine.steps.eager_steps - eager_steps,
    )
    finish(engine, sequences)
    return measurement


def measure_ours(work: Workload, streams: list[int], **options: Any) -> dict[str, Any]:
    """One precision: prefill, decoding at each number of streams that fits, and memory with all slots."""
    release(work.device)
    before = memory(work.device)
    try:
        engine = open_engine(work, max_rows=2 * max(streams), max_waiting=max(streams), **options)
    except (EngineUnavailable, torch.OutOfMemoryError) as problem:
        return {**options, "rows": [{"streams": count, "not_measured": str(problem)} for count in streams]}
    prefills = [prefill_seconds(engine) for _ in range(1 + PREFILLS)]
    rows: list[dict[str, Any]] = []
    for count in streams:
        if 2 * count <= engine.slots.count:
            rows.append(asdict(decode(engine, count, work.tokens)))
        else:
            few = f"it takes {2 * count} slots and {engine.slots.count} fit into memory"
            rows.append({"streams": count, "not_measured": few})
        print(options["precision"], rows[-1], file=sys.stderr, flush=True)
    return {
        **options,
        "prefill_ms": round(statistics.median(prefills[1:]) * 1000, 2),
        "memory_mib": round((memory(work.device) - before) / 2**20, 1),
        "weights_per_step_mib": engine.t3.weight_bytes >> 20,
        "kv_cache_mib": engine.slots.nbytes >> 20,
        "positions_per_slot": engine.slots.positions,
        "rows": rows,
    }


def measure(work: Workload, options: argparse.Namespace) -> dict[str, Any]:
    """Upstream, ours in every precision, upstream again; copy bandwidth before and after."""
    bandwidths = [copy_bandwidth(work.device)]
    halves = [measure_upstream(work)] if options.upstream else []
    chosen = {"device": work.device.type, "attention": options.attention, "strict": options.strict}
    ours = [measure_ours(work, options.streams, precision=name, **chosen) for name in options.precisions]
    if options.upstream:
        halves.append(measure_upstream(work))
    bandwidths.append(copy_bandwidth(work.device))
    bandwidth = statistics.mean(bandwidths)
    upstream = {name: round(statistics.mean(half[name] for half in halves), 3) for name in halves[0]} if halves else {}
    for row in (row for engine in ours for row in engine["rows"] if "not_measured" not in row):
        row["roofline_share"] = round(row["bytes_per_step"] / bandwidth * row["steps_per_s"], 3)
        if upstream:
            row["ratio_aggregate"] = round(row["tokens_per_s"] / upstream["tokens_per_s"], 3)
            row["ratio_per_stream"] = round(row["steps_per_s"] / upstream["tokens_per_s"], 3)
    return {
        "copy_gb_per_s": [round(each / 1e9, 1) for each in bandwidths],
        "upstream": {"precision": "fp32", "streams": 1, **upstream, "halves": halves} if upstream else None,
        "ours": ours,
    }


def described(work: Workload) -> dict[str, Any]:
    """What was measured, where, and with which versions."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["scripts/bench_engine.py", *sys.argv[1:]]),
        **environment(work.device),
        "model": asdict(work.config),
        "text_tokens": len(work.text_tokens),
        "tokens": work.tokens,
    }


def show(result: dict[str, Any]) -> None:
    speeds = Table("engine", "streams", "tokens/s", "x upstream", "ms a step", "MB a step", "roofline")
    once = Table("engine", "prefill, ms", "memory, MiB")
    named = [("ours " + engine["precision"], engine) for engine in result["ours"]]
    if upstream := result["upstream"]:
        named.insert(0, ("upstream fp32", upstream))
        speeds.add_row("upstream fp32", "1", str(upstream["tokens_per_s"]), "1", str(upstream["step_ms_p50"]))
    for name, engine in named:
        once.add_row(name, str(engine.get("prefill_ms", "")), str(engine.get("memory_mib", "")))
        for row in engine.get("rows", []):
            if "not_measured" in row:
                speeds.add_row(name, str(row["streams"]), "not measured")
                continue
            keys = ("streams", "tokens_per_s", "ratio_aggregate", "step_ms_p50")
            figures = [str(row.get(key, "")) for key in keys]
            speeds.add_row(name, *figures, f"{row['bytes_per_step'] / 1e6:.0f}", f"{row['roofline_share']:.0%}")
    Console().print(f"{result['hardware']['device']}, copies {result['copy_gb_per_s']} GB/s", speeds, once)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", type=Path, metavar="DIR")
    weights.add_argument("--layers", type=int, metavar="N", help="of the random weights; all by default")
    parser.add_argument("--precisions", default="fp32,bf16", help="of ours")
    parser.add_argument("--streams", default="1,2,4,8,16,32,64", help="numbers of sequences at once")
    parser.add_argument("--tokens", type=int, metavar="N", help="timed per sequence; 40 on a CPU, 300 on CUDA")
    parser.add_argument("--attention", choices=get_args(AttentionName), default="auto")
    parser.add_argument("--strict", action="store_true", help="run every step with all rows")
    parser.add_argument("--no-upstream", action="store_false", dest="upstream")
    parser.add_argument("--output", type=Path, metavar="PATH")
    options = parser.parse_args()
    options.precisions = options.precisions.split(",")
    if not {"fp32", "bf16"}.issuperset(options.precisions):
        parser.error("--precisions are fp32 and bf16")
    options.streams = [int(count) for count in options.streams.split(",")]
    if min(options.streams) < 1 or (options.tokens or 1) < 1 or (options.layers or 1) < 1:
        parser.error("--streams, --tokens and --layers are numbers from 1")
    return options


def main() -> None:
    options = parse_arguments()
    device = choose_device(options.device)
    with tempfile.TemporaryDirectory() as made:
        if options.checkpoint is None:
            write_random_weights(Path(made), options.layers)
        tokens = options.tokens or (300 if device.type == "cuda" else 40)
        work = read_workload(options.checkpoint or Path(made), tokens, device)
        result = described(work) | measure(work, options)
    pruned = f"-layers{options.layers}" if options.layers else ""
    target: Path = (
        options.output or ROOT / f"benchmarks/results/engine-{device.type}{pruned}-{result['date'][:10]}.json"
    )
    target.write_text(json.dumps(result, indent=2) + "\n")
    show(result)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
