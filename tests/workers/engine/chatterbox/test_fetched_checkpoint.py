"""A checkpoint that was fetched from a hub is one that the engine takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.models import fetch
from tests.hub import COMMIT, REPOSITORY, LocalHub, serving
from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.weights import TensorFile, find_checkpoint, read_conditionals


def test_worker_takes_what_was_fetched(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine finds every file and reads the tensors that were served."""
    with serving(LocalHub(tiny_checkpoint)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("NO_PROXY", "*")
        fetched = fetch(f"{REPOSITORY}@{COMMIT}", tmp_path)
    directory = find_checkpoint(str(fetched))
    served = TensorFile(tiny_checkpoint / ENGLISH.t3)
    layers = served.count("tfmr.layers.")
    assert TensorFile(directory / ENGLISH.t3).count("tfmr.layers.") == layers > 0
    assert set(read_conditionals(directory / ENGLISH.conditionals)) == {"t3", "gen"}
