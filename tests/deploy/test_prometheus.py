"""The Prometheus configuration, read by promtool and used by a real Prometheus on a real fleet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx2

from tests.running import ROOT, RunningFleet, free_port, wait_for
from tests.tools import require_tool

DEPLOY = ROOT / "deploy"


def test_promtool_accepts_the_configuration() -> None:
    """promtool finds the configuration valid."""
    check = subprocess.run(
        [require_tool("promtool"), "check", "config", DEPLOY / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_prometheus_reads_the_whole_fleet(fleet: RunningFleet, tmp_path: Path) -> None:
    """Prometheus finds the balancer and both workers up, each under its job."""
    program = require_tool("prometheus")
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    offset = fleet.port - 6095
    for file, ports in (("prometheus.yml", [6095]), ("targets/workers.json", [6100, 6101])):
        copy = tmp_path / "deploy" / file
        text = copy.read_text().replace("scrape_interval: 15s", "scrape_interval: 1s")
        for port in ports:
            assert text.count(f"127.0.0.1:{port}") == 1
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{port + offset}")
        copy.write_text(text)
    address = f"127.0.0.1:{free_port(0)}"
    with (tmp_path / "log").open("wb") as log:
        prometheus = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path / 'deploy' / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'data'}",
                f"--web.listen-address={address}",
            ],
            stderr=log,
        )
    expected = {
        ("chatterbox-balancer", f"127.0.0.1:{fleet.port}", "up"),
        *(("chatterbox-workers", url.removeprefix("http://"), "up") for url in fleet.worker_urls()),
    }
    try:
        wait_for(lambda: _targets(address) == expected)
    finally:
        prometheus.terminate()
        prometheus.wait(10)


def _targets(address: str) -> set[tuple[str, str, str]]:
    """Job, address and health of each target; none until Prometheus answers."""
    try:
        answer = httpx2.get(f"http://{address}/api/v1/targets", trust_env=False)
    except httpx2.ConnectError:
        return set()
    if answer.status_code != httpx2.codes.OK:
        return set()
    targets = answer.json()["data"]["activeTargets"]
    return {(target["labels"]["job"], target["labels"]["instance"], target["health"]) for target in targets}
