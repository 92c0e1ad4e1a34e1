"""The figures of an engine that decodes tokens, for Prometheus and in the health answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace

import httpx2
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from fleet.contract import DecodingFigures, WorkerHealth
from tests.running import RunningWorker, free_port
from tests.workers.failing import FIGURES
from workers.engine.base import EngineFigures
from workers.engine.espeak import EspeakEngine
from workers.engine_metrics import DecodingCollector
from workers.metrics import WorkerMetrics


def samples(exposition: str) -> dict[str, tuple[str, float]]:
    """Type and value of each figure, by its whole name."""
    families = text_string_to_metric_families(exposition)
    return {sample.name: (family.type, sample.value) for family in families for sample in family.samples}


def scrape(figures: EngineFigures | None) -> Mapping[str, tuple[str, float]]:
    registry = CollectorRegistry()
    registry.register(DecodingCollector(lambda: figures))
    return samples(generate_latest(registry).decode())


def test_every_figure_is_told_with_its_type() -> None:
    """What only grows is a counter, what is held now a gauge, and each figure is there once."""
    scraped = scrape(FIGURES)
    assert scraped["chatterbox_speech_tokens_total"] == ("counter", 3.0)
    assert scraped["chatterbox_kv_slots_used"] == ("gauge", 11.0)
    assert scraped["chatterbox_decode_steps_per_second"] == ("gauge", 61.5)
    assert sorted(value for _, value in scraped.values()) == sorted(asdict(FIGURES).values())
    assert all(name.endswith("_total") == (kind == "counter") for name, (kind, _) in scraped.items())


def test_figure_that_is_not_there_is_left_out() -> None:
    """On a CPU there is no GPU memory, and before the first step no rate."""
    missing = scrape(FIGURES).keys() - scrape(replace(FIGURES, device_bytes=None, steps_per_s=None)).keys()
    assert missing == {"chatterbox_device_bytes", "chatterbox_decode_steps_per_second"}
    assert not scrape(None)


def test_figures_of_a_scrape_are_of_one_moment() -> None:
    """The engine is asked once a scrape, so that ratios between figures hold."""
    moments = (replace(FIGURES, steps=count, step_rows=2 * count) for count in range(1, 100))
    registry = CollectorRegistry()
    registry.register(DecodingCollector(lambda: next(moments)))
    for count in (1, 2):
        scraped = samples(generate_latest(registry).decode())
        assert scraped["chatterbox_decode_steps_total"] == ("counter", float(count))
        assert scraped["chatterbox_decode_step_rows_total"] == ("counter", 2.0 * count)


def test_engine_that_decodes_nothing_has_no_such_figures(engine: EspeakEngine) -> None:
    """The embedded voice is not given figures it does not have."""
    assert "chatterbox_decode" not in WorkerMetrics(engine).exposition().decode()


def test_worker_tells_its_engines_figures() -> None:
    """They stand in `/metrics` beside the worker's own, and in `/health` under the engine's own names."""
    assert list(DecodingFigures.model_fields) == [field.name for field in fields(EngineFigures)]
    with RunningWorker(free_port(0), module="tests.workers.failing") as worker:
        scraped = samples(httpx2.get(f"{worker.url}/metrics", trust_env=False).text)
        health = WorkerHealth.model_validate_json(httpx2.get(f"{worker.url}/health", trust_env=False).content)
    assert scraped.items() >= scrape(FIGURES).items()
    assert "chatterbox_running_jobs" in scraped
    assert health.figures is not None
    assert health.figures.model_dump() == asdict(FIGURES)
