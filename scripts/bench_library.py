"""Measure the library of voices on a real worker: listing many, speaking with one at first and again, memory.

`python scripts/bench_library.py` starts a worker on espeak, or with `--checkpoint DIR` on Chatterbox, over a fresh
SQLite library that is filled with voices whose recordings are synthetic. It prints a table and writes
`benchmarks/results/library-<engine>-<date>.json`, or what `--out` names.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import numpy as np
import psutil
import torch
from bench_environment import ROOT, environment
from bench_workers import running_worker

sys.path.insert(0, str(ROOT))

from fleet.library_contract import RecordingReport
from workers.voices import examiner
from workers.voices.artifacts import Artifacts
from workers.voices.database import Database, sqlite_url
from workers.voices.records import SampleRecord, VoiceDraft
from workers.voices.store import VoiceStore

_PITCHES_HZ = (80.0, 300.0)
_SECONDS = 3.0
_LOOKS = 20
_TEXT = "Ready."


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        settings = {
            "engine": "chatterbox" if options.checkpoint else "espeak",
            "device": "cpu" if not torch.cuda.is_available() else "auto",
            "checkpoint": options.checkpoint,
            "data_dir": data,
            "voice_cache_size": options.cache_bytes,
            "max_tokens": options.max_tokens if options.checkpoint else None,
            "log_level": "warning",
        }
        with running_worker(settings, None) as url, httpx2.Client(base_url=url, timeout=600, trust_env=False) as client:
            found: dict[str, Any] = {"rotation": rotation(client, data, options.rotating)}
            found["speaking"] = speaking(client, data, options.first_requests)
            found["listing"] = listing(client, data, options.voices)
    _tell(found)
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python", "scripts/bench_library.py", *sys.argv[1:]]),
        **environment(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "results": found,
    }
    name = f"library-{settings['engine']}-{datetime.now(UTC):%Y-%m-%d}.json"
    (options.out or ROOT / "benchmarks/results" / name).write_text(json.dumps(record, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="directory of the Chatterbox model; without it the worker runs espeak")
    parser.add_argument("--voices", type=int, default=10_000, help="in the library when it is listed")
    parser.add_argument("--rotating", type=int, default=1_000, help="voices that are spoken with in turn")
    parser.add_argument("--cache-bytes", type=int, default=4_096, help="bytes of prepared voices held in memory")
    parser.add_argument("--first-requests", type=int, default=10, help="voices whose first request is timed")
    parser.add_argument("--max-tokens", type=int, default=50, help="longest speech of a sentence, of --checkpoint")
    parser.add_argument("--out", type=Path, help="file of the results instead of benchmarks/results")
    return parser.parse_args()


def speechlike(pitch_hz: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Syllables of a voiced sound, so that any engine finds a speaker in it."""
    moments = np.arange(round(_SECONDS * examiner.COPY_RATE)) / examiner.COPY_RATE
    tone = sum(np.sin(2 * np.pi * pitch_hz * number * moments) / number for number in range(1, 12))
    syllables = np.clip(4 * np.sin(4 * np.pi * moments) ** 2 - 1, 0, 1)
    return np.asarray(0.25 * tone * syllables, np.float32)


@contextmanager
def library(data: Path) -> Iterator[tuple[VoiceStore, Artifacts]]:
    """The worker's own library, written to as another worker would."""
    database = Database.open(sqlite_url(data / "library.db"))
    try:
        yield VoiceStore(database), Artifacts(data / "sha256")
    finally:
        database.close()


def fill(data: Path, prefix: str, count: int, *, recordings: bool) -> list[str]:
    """Voices straight into the store; without `recordings` nobody can speak with them."""
    report = RecordingReport(
        duration_s=_SECONDS,
        sample_rate=24_000,
        channels=1,
        loudness_lufs=-20,
        peak_db=-3,
        clipped=0,
        silent=0.1,
        noise_db=-60,
    )
    ids = []
    with library(data) as (store, artifacts), tempfile.TemporaryDirectory() as folder:
        kind = kind_of(data)
        for number in range(count):
            digest, size = "0" * 64, 0
            if recordings:
                target = Path(folder) / "copy.flac"
                pitch = np.interp(number, (0, max(1, count - 1)), _PITCHES_HZ)
                examiner.write_copy(speechlike(float(pitch)), examiner.COPY_RATE, str(target))
                size = target.stat().st_size
                digest = artifacts.put(target.read_bytes())
            sample = SampleRecord("voice.flac", "audio/flac", digest, size, digest, size, report)
            draft = VoiceDraft(f"{prefix} {number:05}", description="for a measurement", language="en")
            ids.append(store.create_voice(draft, [sample], kind=kind).id)
    return ids


def kind_of(data: Path) -> str:
    """The kind of conditionals that the worker has prepared before, or any."""
    with sqlite3.connect(data / "library.db") as connection:
        row = connection.execute("SELECT kind FROM preparations LIMIT 1").fetchone()
    return "none yet" if row is None else str(row[0])


def speak(client: httpx2.Client, voice: str) -> float:
    """Seconds to the whole of a short sound."""
    began = time.perf_counter()
    answer = client.post("/synthesize", json={"text": _TEXT, "voice": voice, "seed": 0, "format": "pcm"})
    answer.raise_for_status()
    return time.perf_counter() - began


def rotation(client: httpx2.Client, data: Path, count: int) -> dict[str, Any]:
    """All voices spoken with in turn, three times, with room in memory for a part of them."""
    ids = fill(data, "Rotating", count, recordings=True)
    process = psutil.Process(client.get("/health").json()["pid"])
    rounds = []
    for _ in range(3):
        for voice in ids:
            speak(client, voice)
        held = int(float(_metric(client, "chatterbox_voice_cache_bytes")))
        rounds.append({"rss_mib": round(process.memory_info().rss / 2**20, 1), "cache_bytes": held})
    read = int(float(_metric(client, "chatterbox_voice_cache_misses_total")))
    return {"voices": count, "rounds": rounds, "voices_read_from_disk": read}


def _metric(client: httpx2.Client, name: str) -> str:
    lines = client.get("/metrics").text.splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{name} "))


def speaking(client: httpx2.Client, data: Path, count: int) -> dict[str, Any]:
    """A voice's first request, which waits for its preparation, beside later ones, and beside one of the engine's."""
    default = client.get("/v1/audio/voices").json()["voices"][0]["id"]
    own = [speak(client, default) for _ in range(count)]
    first, again = [], []
    for number in range(count):
        (voice,) = fill(data, f"First {number}", 1, recordings=True)
        first.append(speak(client, voice))
        again += [speak(client, voice) for _ in range(3)]
    return {
        "first_s": round(median(first), 4),
        "again_s": round(median(again), 4),
        "engines_own_s": round(median(own), 4),
    }


def listing(client: httpx2.Client, data: Path, count: int) -> dict[str, Any]:
    """One page, a search, and all voices in one answer, as the caller measures them."""
    there = client.get("/voices", params={"limit": 1}).json()["total"]
    fill(data, "Listed", max(0, count - there), recordings=False)
    total = client.get("/voices", params={"limit": 1}).json()["total"]
    last: dict[str, str | int] = {"limit": 100, "search": "listed", "cursor": _cursor_near_the_end(client)}
    return {
        "voices": total,
        "first_page_of_100_ms": _ms(lambda: client.get("/voices")),
        "late_page_of_100_ms": _ms(lambda: client.get("/voices", params=last)),
        "search_ms": _ms(lambda: client.get("/voices", params={"search": f"{count - 1:05}"[-3:]})),
        "page_of_1000_ms": _ms(lambda: client.get("/voices", params={"limit": 1000})),
        "all_for_open_webui_ms": _ms(lambda: client.get("/v1/audio/voices")),
    }


def _cursor_near_the_end(client: httpx2.Client) -> str:
    cursor = ""
    for _ in range(8):
        page = client.get(
            "/voices", params={"limit": 1000, "search": "listed", **({"cursor": cursor} if cursor else {})}
        )
        cursor = page.json()["next"] or cursor
    return cursor


def _ms(ask: Callable[[], httpx2.Response]) -> float:
    ask().raise_for_status()
    times = []
    for _ in range(_LOOKS):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    return round(1000 * median(times), 2)


def _tell(found: dict[str, Any]) -> None:
    for group, figures in found.items():
        print(group)
        for name, figure in figures.items():
            print(f"  {name:24} {figure}")


if __name__ == "__main__":
    main()
