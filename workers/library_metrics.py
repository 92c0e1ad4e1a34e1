"""The library's figures for Prometheus, read as they stand when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.voices.library import Library


class LibraryCollector(Collector):
    """Voices there are, and what preparing them and holding them in memory has taken in this worker."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def collect(self) -> Iterator[Metric]:
        view, cache, preparer = self._library.snapshot, self._library.cache, self._library.preparer
        yield GaugeMetricFamily("chatterbox_voices", "Voices, the engine's own among them.", len(view.voices))
        yield GaugeMetricFamily("chatterbox_voices_pending", "Voices not yet prepared.", len(view.pending))
        yield GaugeMetricFamily("chatterbox_voice_cache_bytes", "Prepared voices held in memory.", cache.nbytes)
        yield CounterMetricFamily("chatterbox_voice_cache_hits", "Syntheses whose voice was in memory.", cache.hits)
        yield CounterMetricFamily("chatterbox_voice_cache_misses", "Voices read from the disk.", cache.misses)
        prepared = CounterMetricFamily("chatterbox_voices_prepared", "Voices prepared here.", labels=["outcome"])
        prepared.add_metric(["ok"], preparer.prepared)
        prepared.add_metric(["unfit"], preparer.failed)
        yield prepared
