"""The Prometheus configuration, rules and dashboard, read by promtool and used by a real Prometheus on a real fleet."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.running import ROOT, RunningFleet, free_port, wait_for
from tests.tools import require_tool
from tests.workers.failing import FIGURES
from workers.engine_metrics import DecodingCollector

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana/chatterbox-fleet.json").read_text())
ALERT_TESTS = ROOT / "tests/deploy/rules/alerts.test.yml"
ALERTS = re.findall(r"- alert: (\w+)", (DEPLOY / "rules/alerts.yml").read_text())

QUERIES = [
    pytest.param(
        target["expr"].replace("$__rate_interval", "1m").replace('"$balancer"', '".*"').replace('"$worker"', '".*"'),
        id=f"{panel['title']}-{target['refId']}",
    )
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]


class Prometheus:
    """A real one that reads a fleet every second, with the shipped rules, judged every second too."""

    def __init__(self, directory: Path, fleet: RunningFleet) -> None:
        self.url = f"http://127.0.0.1:{free_port(0)}"
        self._directory = directory
        directory.mkdir(exist_ok=True)
        shutil.copytree(DEPLOY, directory / "deploy")
        offset = fleet.port - 6095
        for file, ports in (("targets/balancers.json", [6095]), ("targets/workers.json", [6100, 6101])):
            copy = directory / "deploy" / file
            text = copy.read_text()
            for port in ports:
                assert text.count(f"127.0.0.1:{port}") == 1
                text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{port + offset}")
            copy.write_text(text)
        for file in ("prometheus.yml", "rules/alerts.yml"):
            copy = directory / "deploy" / file
            text = copy.read_text().replace("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s")
            copy.write_text(re.sub(r"for: \w+", "for: 1s", text))

    @contextmanager
    def running(self) -> Iterator[None]:
        with (self._directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    require_tool("prometheus"),
                    f"--config.file={self._directory / 'deploy' / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stderr=log,
            )
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)

    def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer; nothing until Prometheus answers. Raises for a query that it cannot read."""
        try:
            answer = httpx2.get(f"{self.url}/api/v1/{path}", params=parameters, trust_env=False)
        except httpx2.ConnectError:
            return {}
        if answer.status_code == httpx2.codes.SERVICE_UNAVAILABLE:
            return {}
        answer.raise_for_status()
        return answer.json()["data"]

    def targets(self) -> set[tuple[str, str, str]]:
        """Job, address and health of each target."""
        targets = self.ask("targets").get("activeTargets", ())
        return {(target["labels"]["job"], target["labels"]["instance"], target["health"]) for target in targets}

    def firing(self) -> set[str]:
        alerts = self.ask("alerts").get("alerts", ())
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@pytest.fixture(scope="module")
def prometheus(fleet: RunningFleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), fleet)
    with server.running():
        yield server


@pytest.mark.parametrize(
    "arguments",
    [["check", "config", DEPLOY / "prometheus.yml"], ["test", "rules", ALERT_TESTS]],
    ids=["configuration", "alerts"],
)
def test_promtool_is_content(arguments: list[str | Path]) -> None:
    """The configuration and its rules are valid, and each alert fires and stays silent where it should."""
    check = subprocess.run([require_tool("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stdout + check.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tried_both_ways(alert: str) -> None:
    """Once where it fires and once where it does not."""
    tried = re.findall(
        rf'alertname="{alert}",alertstate="firing"\}}\'\n +eval_time: \w+\n +exp_samples:( \[\])?',
        ALERT_TESTS.read_text(),
    )
    assert set(tried) == {"", " []"}


def test_prometheus_reads_the_whole_fleet(fleet: RunningFleet, prometheus: Prometheus) -> None:
    """Prometheus finds the balancer and both workers up, each under its job."""
    expected = {
        ("chatterbox-balancer", f"127.0.0.1:{fleet.port}", "up"),
        *(("chatterbox-workers", url.removeprefix("http://"), "up") for url in fleet.worker_urls()),
    }
    wait_for(lambda: prometheus.targets() == expected)


def test_rules_are_evaluated_over_a_fleet_that_speaks(fleet: RunningFleet, prometheus: Prometheus) -> None:
    """Without an error; the recorded figures are there, and the fleet that is well raises no alarm."""

    def recorded() -> bool:
        speech = {"input": "Measure me.", "response_format": "pcm"}
        httpx2.post(f"{fleet.url}/v1/audio/speech", json=speech, trust_env=False).raise_for_status()
        ratio = prometheus.ask("query", query="fleet:error_ratio:rate5m and on () (fleet:rtf:p95_5m < 10)")
        return bool(ratio and ratio["result"])

    wait_for(recorded)
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] == "err"} == set()
    assert not prometheus.firing() & {"FleetNoReadyWorker", "FleetErrorsFast", "FleetWorkerDown", "FleetQueueFull"}


@pytest.mark.parametrize("query", QUERIES)
def test_every_query_of_the_dashboard_is_answerable(query: str, fleet: RunningFleet, prometheus: Prometheus) -> None:
    """Prometheus understands it, and each metric and label in it is one that the fleet serves or a rule records."""
    wait_for(lambda: prometheus.ask("query", query=query) != {})
    served = _labels_served(fleet)
    names = set(re.findall(r"\b(?:chatterbox|balancer|fleet|worker)[_:][a-z0-9_:]+", query))
    assert names
    assert names <= set(served), names - set(served)
    labels = {label for listed in re.findall(r"by \(([a-z, ]+)\)", query) for label in listed.split(", ")}
    labels |= set(re.findall(r"[{,]([a-z]+)=~?\"", query))
    assert labels <= {"instance"}.union(*(served[name] for name in names))


def _labels_served(fleet: RunningFleet) -> dict[str, set[str]]:
    """The labels of each sample of the fleet, of an engine that decodes tokens, and of the rules."""
    registry = CollectorRegistry()
    registry.register(DecodingCollector(lambda: FIGURES))
    texts = [generate_latest(registry).decode()]
    texts += [httpx2.get(f"{url}/metrics", trust_env=False).text for url in (fleet.url, *fleet.worker_urls())]
    served: dict[str, set[str]] = {}
    documented = dict(re.findall(r"`([a-z_]+)\{([a-z,]+)\}`", (ROOT / "docs/metrics.md").read_text()))
    for text in texts:
        for family in text_string_to_metric_families(text):
            # A counter with labels has no sample before there is something to count.
            name = family.name + "_total" * (family.type == "counter")
            served.setdefault(name, set(documented.get(name, "").split(",")))
            for sample in family.samples:
                served.setdefault(sample.name, set()).update(sample.labels)
    for recorded in re.findall(r"record: (\S+)", (DEPLOY / "rules/recording.yml").read_text()):
        served[recorded] = set()
    return served


def test_the_dashboard_is_what_its_script_writes() -> None:
    """The file has not been edited by hand, and no two panels overlap."""
    script = [sys.executable, str(ROOT / "scripts/make_dashboard.py"), "--check"]
    check = subprocess.run(script, capture_output=True, text=True, check=False)
    assert check.returncode == 0, check.stderr
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)


def test_a_fleet_without_a_worker_raises_the_alarm(tmp_path: Path) -> None:
    """Of a balancer that answers for no one."""
    with RunningFleet(tmp_path / "fleet", "--workers", "1") as alone:
        server = Prometheus(tmp_path / "prometheus", alone)
        with server.running():
            wait_for(lambda: ("chatterbox-balancer", f"127.0.0.1:{alone.port}", "up") in server.targets())
            httpx2.post(f"{alone.url}/workers/worker-0/drain", trust_env=False).raise_for_status()
            wait_for(lambda: "FleetNoReadyWorker" in server.firing())
