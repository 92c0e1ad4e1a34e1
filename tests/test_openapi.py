"""The API against its own description: whatever the OpenAPI document allows, and much that it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.running import ROOT, RunningWorker, free_port, jobs, wait_for

_EXAMPLES = 60
"""Of each operation, beside those that cover the schema's own limits."""


def test_no_request_makes_the_server_fail(tmp_path: Path) -> None:
    """Generated requests, good and bad, over every route but the endless one: none is answered 5xx."""
    with RunningWorker(free_port(0), data_dir=tmp_path / "data", max_text_chars=200, voice_wait_s=2) as worker:
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{worker.url}/openapi.json"]
        limits = ["--max-examples", str(_EXAMPLES), "--request-timeout", "20", "--generation-deterministic"]
        scope = ["--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing,stateful"]
        # A refused connection or a 503 for a trial would be told as a failure too; the events' stream never ends.
        # One that is told to drain says so to its probes with a 503, as it should.
        left_out = ["--exclude-path", "/voices/events", "--exclude-path", "/draining"]
        quiet = ["--no-color", "--suppress-health-check", "all"]
        done = subprocess.run(
            [*command, *limits, *scope, *left_out, *quiet],
            cwd=tmp_path,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        wait_for(lambda: jobs(worker.url) == (0, 0))
        spoken = httpx2.post(f"{worker.url}/synthesize", json={"text": "Still here."}, trust_env=False)
        assert spoken.status_code == 200
