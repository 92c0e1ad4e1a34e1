"""docs/engine.md says what is so."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from workers.engine.chatterbox.checkpoint import ENGLISH
from workers.engine.chatterbox.options import EngineOptions, SpeechOptions

ROOT = Path(__file__).parents[4]
PAGE = (ROOT / "docs/engine.md").read_text()


def test_every_option_is_documented_with_its_default() -> None:
    section = PAGE.split("## Options")[1].split("## ")[0]
    table = dict(re.findall(r"^\| `(\w+)` \| `?([^`|]+?)`? \|", section, re.MULTILINE))
    assert table == {
        field.name: str(field.default) for options in (EngineOptions, SpeechOptions) for field in fields(options)
    }


def test_the_example_runs(tiny: Path, tmp_path: Path) -> None:
    """As it stands, on a checkpoint directory of that name."""
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "TokenEngine" in code]
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    for name in ENGLISH.all:
        source = tiny / name
        (checkpoint / name).symlink_to(source) if source.exists() else (checkpoint / name).touch()
    code = example.replace('device="cpu"', 'device="cpu", max_rows=4, memory_share=0.3')
    command = [sys.executable, "-c", code]
    said = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    assert re.search(r"Finish\.(LENGTH|STOP) \[\d+(, \d+)*\]", said)


def test_the_whole_example_runs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """As it stands but for a bound on its length, since random weights do not know when to stop."""
    (example,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "ChatterboxTTS" in code]
    (tmp_path / "checkpoint").symlink_to(tiny_checkpoint)
    bounded = "from workers.engine.chatterbox.options import SpeechOptions\n" + example.replace(
        '"cpu")', '"cpu", speech=SpeechOptions(max_tokens=40))'
    )
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", bounded], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    assert re.search(r"torch\.Size\(\[1, \d{3,}\]\)", finished.stdout)
