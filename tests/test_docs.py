"""The documentation is held against the code."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from balancer.settings import BalancerSettings
from fleet.error_answers import leaves
from fleet.library_contract import EmotionProfile, EmotionTest, Generated, VoiceChanges
from fleet.routes import DRAIN_PATH
from fleet.settings import ProcessSettings
from fleet.speech_contract import SpeechRequest, SynthesisRequest
from tests.running import ROOT
from tests.workers.failing import FIGURES
from workers.engine_metrics import DecodingCollector
from workers.guard import ENGINE_LOST_EXIT
from workers.settings import WorkerSettings

API = (ROOT / "docs/api.md").read_text()
METRICS = (ROOT / "docs/metrics.md").read_text()
TROUBLE = (ROOT / "docs/troubleshooting.md").read_text()


def cell(text: str) -> str:
    return f"`{text}`"


@pytest.mark.parametrize("settings", [WorkerSettings, BalancerSettings])
def test_every_setting_is_documented_with_its_default(settings: type[ProcessSettings]) -> None:
    """Each variable has a row; the default shown is the default there is; nothing else is listed."""
    prefix = str(settings.model_config.get("env_prefix"))
    listed = set(re.findall(rf"`({prefix}[A-Z_]+)`", API))
    assert listed == set(settings.variables())
    for variable, field in settings.variables().items():
        default = settings.model_fields[field].default
        row = next(line for line in API.splitlines() if re.match(rf"\|[^|]*`{variable}`", line))
        if default is not None:
            shown = str(default).lower() if isinstance(default, bool) else str(default)
            assert cell(shown) in row.split("|")[2], row


def test_every_field_of_a_request_is_documented() -> None:
    """Speech, voices and emotions, field by field."""
    models = (SpeechRequest, SynthesisRequest, VoiceChanges, EmotionProfile, EmotionTest, Generated)
    for field in {field for model in models for field in model.model_fields}:
        assert cell(field) in API, field


def test_every_error_code_is_documented_with_its_status() -> None:
    """Each code stands in the table beside its status, or among those that never go over HTTP."""
    for kind in leaves():
        rows = [line for line in API.splitlines() if cell(kind.code) in line]
        assert rows, kind.code
        assert any(line.startswith(f"| {kind.status} |") or not line.startswith("|") for line in rows), kind.code


def test_every_error_code_has_a_cure() -> None:
    """A row of the page on trouble for each code, and none for what is no code."""
    rows = re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| [^|]+ \|$", TROUBLE, re.MULTILINE)
    assert sorted(rows) == sorted({kind.code for kind in leaves()} | {"startup_failed", "internal_error"})


def test_every_alert_has_a_section_it_points_to() -> None:
    """Under its own name, with something to do; no section is of an alert that is not there."""
    rules = (ROOT / "deploy/rules/alerts.yml").read_text()
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert re.findall(r"runbook: docs/troubleshooting\.md#(\w+)", rules) == [name.lower() for name in alerts]
    assert re.findall(r"^### (\w+)\n\n- ", TROUBLE, re.MULTILINE) == alerts


def test_links_to_sections_lead_somewhere() -> None:
    """Every anchor in a link between the pages is a heading there."""
    for page in (ROOT / "README.md", ROOT / "deploy/README.md", *(ROOT / "docs").glob("*.md")):
        for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
            text = (page.parent / file).read_text() if file else page.read_text()
            headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            there = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in there, f"{page.name}: {file}#{anchor}"


def test_settings_named_elsewhere_exist() -> None:
    """Operators copy them: each one in the pages on operations and trouble is in the page of settings."""
    pages = TROUBLE + (ROOT / "docs/operations.md").read_text()
    for variable in set(re.findall(r"\b(?:CHATTERBOX|BALANCER)_[A-Z_]+\b", pages)):
        assert f"`{variable}`" in API, variable


def test_exit_code_of_a_lost_engine_is_documented() -> None:
    """The page names the code that a process ends with."""
    assert f"ends with code {ENGINE_LOST_EXIT}" in API


def test_every_route_is_documented(worker_http: httpx2.Client, http: httpx2.Client) -> None:
    """What the OpenAPI document and the balancer serve stands in the page."""
    paths = worker_http.get("/openapi.json").json()["paths"]
    for path, methods in {**paths, "/stats": {"get": {}}}.items():
        for method in methods:
            assert re.search(rf"`{method.upper()} {re.escape(path)}`", API), (method, path)
        if path not in ("/voices/events", DRAIN_PATH):  # one does not end, one is a worker's alone
            answer = http.get(
                path.replace("{model_id}", "tts-1").replace("{voice_id}", "alto").replace("{emotion_id}", "calm")
            )
            assert answer.status_code in (200, 404, 405, 422), path
            assert answer.status_code != 404 or answer.json()["error"]["code"] != "route_not_found", path


def test_metrics_page_lists_what_is_served(worker_http: httpx2.Client, http: httpx2.Client) -> None:
    """Every family is on the page with its type, and every row of the page is served, if by another engine."""
    http.post("/synthesize", json={"text": "Measure me."})
    registry = CollectorRegistry()
    registry.register(DecodingCollector(lambda: FIGURES))
    expositions = [client.get("/metrics").text for client in (worker_http, http)]
    served = {}
    for exposition in (*expositions, generate_latest(registry).decode()):
        for family in text_string_to_metric_families(exposition):
            if not family.name.endswith("_created"):
                served[family.name + ("_total" if family.type == "counter" else "")] = family.type
    listed = dict(re.findall(r"^\| `([a-z_]+)(?:\{[a-z,]+\})?` \| ([a-z]+) \|", METRICS, re.MULTILINE))
    assert listed == served


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link names a file that is there."""
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_decision_has_a_reason() -> None:
    """Each record says why and what follows."""
    records = sorted((ROOT / "docs/adr").glob("*.md"))
    assert len(records) >= 9
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {int(record.name[:4])}. "), record.name
        assert "## Why" in text
        assert "## What follows" in text


def test_prose_and_code_hold_no_emoji() -> None:
    """Neither documents nor sources, but for the tests that speak them."""
    emoji = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf]")
    for path in _tracked():
        if path.suffix in (".md", ".py", ".toml", "") and "tests" not in path.parts:
            assert not emoji.search(path.read_text(errors="ignore")), path


def _tracked() -> list[Path]:
    folders = ("fleet", "workers", "balancer", "scripts", "docs", "nginx", "systemd", "deploy")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    return [path for path in [*files, ROOT / "README.md", ROOT / "CHANGELOG.md"] if "__pycache__" not in path.parts]
