"""Measure each encoder: how much faster than the sound is made it encodes, and how soon its first bytes come.

`python scripts/bench_encoders.py` has espeak speak a text once, then encodes that sound in every format in pieces as an
engine hands them over, and the stages before it. It prints a table and writes
`benchmarks/results/encoders-<date>.json`, or what `--out` names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from bench_environment import ROOT, environment

sys.path.insert(0, str(ROOT))

from fleet.contract import SAMPLE_RATE, AudioFormat
from workers.encoders import encoder_for
from workers.engine.base import Job, Samples, rendered
from workers.engine.espeak import EspeakEngine
from workers.seams import Seams
from workers.tempo import Tempo

_TEXT = "The quick brown fox jumps over the lazy dog, and nobody who saw it could say why it did so. " * 20
_PIECE = SAMPLE_RATE * 6 // 100
"""Samples, 60 ms: what espeak hands over."""


def main() -> None:
    options = _options()
    sound = asyncio.run(_spoken(options.seconds))
    rows = {each.value: _encoded(sound, each, options.rounds) for each in AudioFormat}
    stages = {
        "seams": _timed(sound, Seams, options.rounds),
        "tempo 1.5": _timed(sound, lambda: Tempo(1.5), options.rounds),
    }
    seconds = len(sound) / SAMPLE_RATE
    print(f"{seconds:.1f} s of speech in pieces of {_PIECE * 1000 // SAMPLE_RATE} ms, median of {options.rounds}")
    for name, row in rows.items():
        print(
            f"{name:5}  {row['times_real_time']:7.0f} x real time  {row['kbit_per_s']:6.0f} kbit/s  "
            f"first bytes after {row['sound_before_first_bytes_ms']:4.0f} ms of sound"
        )
    for name, times in stages.items():
        print(f"{name:9}  {times:7.0f} x real time")
    result = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f"scripts/bench_encoders.py --seconds {options.seconds} --rounds {options.rounds}",
        **environment(torch.device("cpu")),
        "audio_s": seconds,
        "piece_ms": _PIECE * 1000 / SAMPLE_RATE,
        "encoders": rows,
        "stages_times_real_time": stages,
    }
    target = options.out or ROOT / f"benchmarks/results/encoders-{result['date']}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


async def _spoken(seconds: float) -> Samples:
    engine = EspeakEngine()
    try:
        async with aclosing(engine.submit(Job(id="bench", text=_TEXT, voice="alto"))) as sound:
            pieces = [rendered(piece) async for piece in sound]
    finally:
        engine.close()
    return np.concatenate(pieces)[: round(seconds * SAMPLE_RATE)]


def _encoded(sound: Samples, audio_format: AudioFormat, rounds: int) -> dict[str, Any]:
    took, size, first = [], 0, 0
    for _ in range(rounds):
        began_at = time.perf_counter()
        encoder, size, first = encoder_for(audio_format), 0, 0
        for start in range(0, len(sound), _PIECE):
            size += len(encoder.encode(sound[start : start + _PIECE]))
            first = first or (min(start + _PIECE, len(sound)) if size else 0)
        size += len(encoder.finish())
        took.append(time.perf_counter() - began_at)
    seconds = len(sound) / SAMPLE_RATE
    return {
        "times_real_time": round(seconds / median(took), 1),
        "kbit_per_s": round(size * 8 / 1000 / seconds, 1),
        "sound_before_first_bytes_ms": round(first * 1000 / SAMPLE_RATE, 1),
    }


def _timed(sound: Samples, make: Any, rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began_at = time.perf_counter()
        stage = make()
        for start in range(0, len(sound), _PIECE):
            (stage.add if isinstance(stage, Seams) else stage.push)(sound[start : start + _PIECE])
        stage.finish()
        took.append(time.perf_counter() - began_at)
    return round(len(sound) / SAMPLE_RATE / median(took), 1)


if __name__ == "__main__":
    main()
