"""The house's own rules that no linter knows."""

from __future__ import annotations

import re
import subprocess
import tomllib

import fleet
from tests.running import ROOT

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


def test_files_stay_readable() -> None:
    """No source file is above 300 lines, and none is called utils or manager."""
    for name in TRACKED:
        if name.endswith(".py") and not name.startswith("tests/"):
            assert len((ROOT / name).read_text().splitlines()) <= 300, name
            assert not re.search(r"util|manager|helper", name), name


def test_every_source_file_says_what_it_is() -> None:
    """A docstring opens each Python file, a comment each script."""
    for name in TRACKED:
        if name.endswith(".py"):
            first = (ROOT / name).read_text().removeprefix("#!/usr/bin/env python3\n")
            assert first.startswith('"""'), name
        elif name.startswith("scripts/") or name == ".ci/run":
            assert any(line.startswith("# ") for line in (ROOT / name).read_text().splitlines()[:3]), name


def test_locks_hold_hashes_and_no_addresses() -> None:
    """Every pinned package has a hash, and no index is named."""
    for lock in (ROOT / "requirements").glob("*.lock"):
        text = lock.read_text()
        assert "://" not in text, lock.name
        assert "--index" not in text, lock.name
        blocks = re.split(r"\n(?=[a-z0-9])", text)
        assert all("--hash=sha256:" in block for block in blocks if "==" in block.splitlines()[0]), lock.name


def test_serving_needs_nothing_heavy() -> None:
    """The serving lock has neither torch nor anything that brings it."""
    names = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements/serve.lock").read_text(), re.MULTILINE))
    assert not names & {"torch", "torchaudio", "transformers", "chatterbox-tts", "scipy", "librosa", "numba"}
    assert len(names) < 70


def test_version_is_told_once() -> None:
    """The package's own version, the project's and the changelog's newest are the same."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert project == fleet.__version__ == newest[1]


def test_locks_agree() -> None:
    """What is tested is what is served: the serving lock's versions are those of the others."""

    def pins(name: str) -> set[str]:
        return set(re.findall(r"^[a-z0-9-]+==[^\s;]+", (ROOT / f"requirements/{name}.lock").read_text(), re.MULTILINE))

    assert pins("serve") <= pins("chatterbox")
    assert pins("serve") <= pins("dev")
    assert pins("chatterbox") <= pins("dev")


def test_continuous_integration_runs_the_readmes_command() -> None:
    """`.ci/run` is `scripts/test`, which the README names."""
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("exec scripts/test")
    assert "\nscripts/test\n" in (ROOT / "README.md").read_text()
