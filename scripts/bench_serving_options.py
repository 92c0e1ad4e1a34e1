"""The options of `bench_serving.py`."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import httpx2
from bench_load import TEXTS

from fleet.client import DEFAULT_URL
from fleet.speech_contract import Quality

HERE = ("127.0.0.1", "localhost", "::1")


def positive(kind: type[int | float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError("must be above 0")
        return value

    return number


def numbers(kind: type[int | float]) -> Callable[[str], list[float]]:
    def number_list(text: str) -> list[float]:
        return [positive(kind)(part) for part in text.split(",")]

    return number_list


def is_here(url: str) -> bool:
    try:
        return httpx2.URL(url).host in HERE
    except httpx2.InvalidURL:
        return False


def parse_arguments(description: str | None) -> argparse.Namespace:
    """The options, with the addresses, texts and loads that they come to; exits when they make no sense."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    # What the environment sets holds unless a flag says otherwise.
    engine, device = (os.environ.get(f"CHATTERBOX_{name}", "auto") for name in ("ENGINE", "DEVICE"))
    checkpoint = os.environ.get("CHATTERBOX_CHECKPOINT")
    server, loads, speech = (parser.add_argument_group(name) for name in ("server", "loads", "speech"))
    add = server.add_argument
    add("--url", help=f"of a worker or balancer; {DEFAULT_URL}")
    add("--allow-remote", action="store_true", help="let --url be on another machine")
    add("--start", action="store_true", help="run a worker instead, with --engine, --device and --checkpoint")
    add("--engine", choices=("auto", "espeak", "chatterbox"), default=engine)
    add("--device", choices=("auto", "cpu", "cuda"), default=device, help="of --start and --upstream")
    add("--checkpoint", metavar="DIR", default=checkpoint, help="of --start and --upstream")
    add("--max-tokens", type=positive(int), metavar="N", help="longest speech of a segment, of --start and --upstream")
    add("--logs", type=Path, metavar="DIR", help="keep the started worker's log here")
    add(
        "--upstream",
        type=positive(int),
        default=0,
        metavar="K",
        help="upstream's generate on K texts, before and after",
    )
    add = loads.add_argument
    add("--concurrency", type=numbers(int), default=[], metavar="N,...", help="closed loads; 1 without --rate")
    add("--requests", type=positive(int), metavar="M", help="of each closed load; four times its concurrency")
    add("--rate", type=numbers(float), default=[], metavar="R,...", help="open loads, requests a second")
    add("--seconds", type=positive(float), default=30.0, metavar="S", help="of an open load's arrivals; %(default)g")
    add("--most-in-flight", type=positive(int), default=256, metavar="N", help="in an open load; %(default)s")
    add("--warm-up", type=int, default=1, metavar="N", help="requests before that do not count; %(default)s")
    add("--timeout", type=positive(float), default=600.0, metavar="S", help="an answer's silence; %(default)g")
    add(
        "--sample-every",
        type=positive(int),
        default=100,
        metavar="N",
        help="requests between looks at RSS; %(default)s",
    )
    add("--each", action="store_true", help="write down every request too")
    add("--out", type=Path, metavar="PATH", help="benchmarks/results/serving-DEVICE-DATE.json")
    add = speech.add_argument
    add("--text", action="append", metavar="TEXT", dest="texts", help="instead of our own; may be repeated")
    add("--seed", type=int, default=0, help="of the first request, and of the arrivals; %(default)s")
    add("--quality", choices=get_args(Quality))
    add("--voice")
    add("--cfg-weight", type=float)
    options = parser.parse_args()
    options.texts = options.texts or list(TEXTS)
    if options.start and options.url:
        parser.error("--url or --start, not both")
    if not options.start:
        address = options.url or DEFAULT_URL
        options.url = address if "://" in address else f"http://{address}"
    if not (options.start or options.allow_remote or is_here(options.url)):
        parser.error(f"{options.url} is not on this machine; --allow-remote puts load on another")
    if options.out is not None and not options.out.parent.is_dir():
        parser.error(f"there is no directory {options.out.parent}")
    options.concurrency = options.concurrency or ([] if options.rate else [1])
    closed = [{"concurrency": n, "requests": options.requests or 4 * n} for n in options.concurrency]
    limits = {"seconds": options.seconds, "most_in_flight": options.most_in_flight}
    options.loads = closed + [{"rate": rate, **limits} for rate in options.rate]
    return options
