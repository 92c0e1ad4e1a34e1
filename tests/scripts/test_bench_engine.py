"""The engine's benchmark, run as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT

FLAGS = ("--device", "cpu", "--layers", "1", "--tokens", "4", "--streams", "1,2", "--precisions", "fp32")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the benchmark writes about one layer of random weights."""
    target = tmp_path_factory.mktemp("bench") / "engine.json"
    command = [sys.executable, str(ROOT / "scripts/bench_engine.py"), *FLAGS, "--output", str(target)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, cwd=target.parent)
    assert finished.returncode == 0, finished.stderr
    assert "ours fp32" in finished.stdout
    assert "Sampling" not in finished.stderr  # upstream's progress bar
    found: dict[str, Any] = json.loads(Path(target).read_text())
    return found


def test_upstream_and_ours_are_measured(result: dict[str, Any]) -> None:
    """Speed, prefill and memory of both sides, and every number of streams that was asked for."""
    (ours,) = result["ours"]
    assert [row["streams"] for row in ours["rows"]] == [1, 2]
    for side in (result["upstream"], *result["upstream"]["halves"], ours):
        assert side["prefill_ms"] > 0
        assert side["memory_mib"] > 50  # one layer and the embeddings take more
    for row in ours["rows"]:
        assert row["tokens_per_s"] == pytest.approx(row["streams"] * row["steps_per_s"], rel=0.01)
        assert row["step_ms_p50"] > 0
        assert (row["replays"], row["eager_steps"]) == (0, 4)
        assert row["roofline_share"] > 0
    assert min(result["copy_gb_per_s"]) > 0


def test_ratios_are_those_of_the_figures(result: dict[str, Any]) -> None:
    """Upstream's speed is the mean of its halves, and ours is divided by it."""
    upstream = result["upstream"]["tokens_per_s"]
    first, second = (half["tokens_per_s"] for half in result["upstream"]["halves"])
    assert min(first, second) > 0
    assert upstream == pytest.approx((first + second) / 2, rel=0.01)
    for row in result["ours"][0]["rows"]:
        assert row["ratio_aggregate"] == pytest.approx(row["tokens_per_s"] / upstream, rel=0.01, abs=0.001)
        assert row["ratio_per_stream"] == pytest.approx(row["steps_per_s"] / upstream, rel=0.01, abs=0.001)


def test_bytes_per_step_are_weights_and_the_kv_cache(result: dict[str, Any]) -> None:
    """One layer's weights and the speech head, once; two rows of keys and values for each stream."""
    one, two = (row["bytes_per_step"] for row in result["ours"][0]["rows"])
    model = result["model"]
    weights = 4 * model["dim"] * (4 * model["dim"] + 3 * model["ffn_dim"] + model["speech_vocabulary"])
    rows_at_mean_length = two - one
    assert one - rows_at_mean_length == pytest.approx(weights, abs=2)
    positions = rows_at_mean_length / (2 * 2 * model["dim"] * 4)
    assert result["text_tokens"] < positions <= result["ours"][0]["positions_per_slot"]


def test_it_says_where_it_was_measured(result: dict[str, Any]) -> None:
    """The command, the machine and the versions are there."""
    assert result["command"].startswith("scripts/bench_engine.py --device cpu --layers 1 --tokens 4")
    assert result["tokens"] == 4
    assert result["hardware"]["cores"] >= 1
    assert result["hardware"]["device"]
    assert {"python", "torch", "chatterbox-tts", "transformers"} <= result["versions"].keys()
    assert result["date"]
