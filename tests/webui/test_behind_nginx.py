"""The page as it is in production: nginx in front, its files on nginx's disk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.deploy.site import Nginx
from tests.running import RunningFleet
from tests.tools import require_tool
from tests.webui.building import PAGE, build, run

TEXT = "Somebody speaks here for as long as it takes to make a file of a megabyte. " * 6


def test_the_page_behind_nginx(fleet: RunningFleet, tmp_path: Path) -> None:
    """In Chromium: nothing of it comes from the balancer but the page itself, and all of it works."""
    shutil.copytree(build(), tmp_path / "site/www/ui")
    recording = tmp_path / "recording.wav"
    speak = [require_tool("ffmpeg"), "-v", "error", "-i", f"{fleet.url}/tts-stream?text={TEXT.replace(' ', '+')}"]
    subprocess.run([*speak, "-ar", "48000", "-t", "25", recording], check=True)
    with Nginx(tmp_path / "site", fleet.port) as site:
        command = ["npx", "playwright", "test"]
        said = run(command, cwd=PAGE, limit_s=150, SITE=site.url, RECORDING=str(recording))
    assert "1 passed" in said
