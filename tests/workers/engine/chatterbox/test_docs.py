"""docs/engine.md says what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.options import EngineOptions

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/engine.md").read_text()


def test_every_option_is_documented_with_its_default() -> None:
    table = dict(
        re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", PAGE.split("## Options")[1].split("## ")[0], re.MULTILINE)
    )
    assert table == {field.name: str(field.default) for field in fields(EngineOptions)}


def test_the_example_runs(tiny: Path, tmp_path: Path) -> None:
    """As it stands, on a checkpoint directory of that name."""
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert example is not None
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ENGLISH.all:
        source = tiny / name
        (checkpoint / name).symlink_to(source) if source.exists() else (checkpoint / name).touch()
    code = example[1].replace('device="cpu"', 'device="cpu", max_rows=4, memory_share=0.3')
    command = [sys.executable, "-c", code]
    said = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert re.search(r"Finish\.(LENGTH|STOP) \[\d+(, \d+)*\]", said)
