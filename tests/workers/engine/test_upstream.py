"""Upstream's package as the lock installs it: the oracle of the engine to come."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, warnings
warnings.simplefilter("ignore")
import perth, torch, torchaudio
from chatterbox.tts import ChatterboxTTS
print(json.dumps({
    "torch": torch.__version__.split("+")[0],
    "torchaudio": torchaudio.__version__.split("+")[0],
    "watermarker": perth.PerthImplicitWatermarker is not None,
    "generates": callable(ChatterboxTTS.generate),
}))
"""


def test_upstream_imports_with_its_watermarker() -> None:
    """The overridden pins still import, and the watermarker is there, which too new a setuptools silently removes."""
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found == {"torch": "2.11.0", "torchaudio": "2.11.0", "watermarker": True, "generates": True}
