"""The page, built once for all tests of a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.running import ROOT
from tests.tools import require_tool

PAGE = ROOT / "webui"


def build() -> Path:
    """Where the page lies, built of the sources as they are now; `scripts/up` builds it in the same way."""
    require_tool("npm")
    said = run(["bash", "-c", ". scripts/environment.sh && build_page"], cwd=ROOT)
    assert (PAGE / "dist/index.html").is_file(), said
    assert (PAGE / "node_modules").is_dir() or npm("ci", "--no-audit", "--no-fund")
    return PAGE / "dist"


def npm(*arguments: str, limit_s: float = 300) -> str:
    """What npm said. It must not fail."""
    return run([require_tool("npm"), *arguments], cwd=PAGE, limit_s=limit_s)


def run(command: Sequence[str], *, cwd: Path, limit_s: float = 300, **more: str) -> str:
    """What a command said; `more` goes into its environment. It must not fail."""
    environment = {
        **os.environ,
        **more,
        "PYTHON": sys.executable,
        "CHROMIUM": require_tool("chromium"),
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:]
    return done.stdout
