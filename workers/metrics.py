"""What a worker measures of itself, for Prometheus and for its own health answer."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from workers.engine.base import Engine
from workers.engine_metrics import DecodingCollector
from workers.library_metrics import LibraryCollector
from workers.voices.library import Library

_RECENT = 32
_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 1, 2, 5, 10, 30)
_RTF_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.6, 1, 2, 5, 10)


class WorkerMetrics:
    """One registry per worker; every figure comes from a clock or a counter, none from the text."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._process = psutil.Process()
        self._recent_ttfa: deque[float] = deque(maxlen=_RECENT)
        self._recent_rtf: deque[float] = deque(maxlen=_RECENT)
        self.started_at = time.time()
        self._registry: CollectorRegistry = CollectorRegistry()
        capabilities = engine.capabilities
        self.syntheses = Counter(
            "chatterbox_syntheses", "Syntheses ended, by outcome.", ["outcome"], registry=self._registry
        )
        self.audio_seconds = Counter("chatterbox_audio_seconds", "Seconds of sound made.", registry=self._registry)
        self.ttfa = Histogram(
            "chatterbox_ttfa_seconds",
            "From a request's acceptance to its first sound.",
            buckets=_LATENCY_BUCKETS_S,
            registry=self._registry,
        )
        self.rtf = Histogram(
            "chatterbox_rtf",
            "Time a synthesis took, waiting for its reader left out, over the length of its sound.",
            buckets=_RTF_BUCKETS,
            registry=self._registry,
        )
        self.in_flight = Gauge("chatterbox_syntheses_in_flight", "Syntheses not yet ended.", registry=self._registry)
        self.streams = Gauge("chatterbox_streams", "Connections that text is written to.", registry=self._registry)
        self._gauge("chatterbox_running_jobs", "Jobs the engine is working on.", lambda: engine.status().running_jobs)
        self._gauge("chatterbox_queued_jobs", "Jobs waiting for the engine.", lambda: engine.status().queued_jobs)
        self._gauge("chatterbox_memory_bytes", "Resident memory of this worker and its children.", self.memory_bytes)
        self._gauge("chatterbox_start_time_seconds", "When this worker started.", lambda: self.started_at)
        info = Gauge("chatterbox_engine_info", "Always 1.", ["engine", "model", "device"], registry=self._registry)
        info.labels(capabilities.engine, capabilities.model, capabilities.device).set(1)
        if engine.figures() is not None:
            self._registry.register(DecodingCollector(engine.figures))

    def watch(self, library: Library) -> None:
        """Tell the library's figures too."""
        self._registry.register(LibraryCollector(library))

    def watch_disk(self, directory: Path) -> None:
        """Tell of the file system that holds the library; NaN where it cannot be asked."""

        def usage(part: str) -> float:
            try:
                return float(getattr(shutil.disk_usage(directory), part))
            except OSError:
                return float("nan")

        self._gauge("chatterbox_disk_bytes", "Size of the library's file system.", lambda: usage("total"))
        self._gauge("chatterbox_disk_free_bytes", "Space there that is free to this worker.", lambda: usage("free"))

    def _gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        Gauge(name, text, registry=self._registry).set_function(read)

    def heard_first_sound(self, seconds: float) -> None:
        self.ttfa.observe(seconds)
        self._recent_ttfa.append(seconds)

    def finished(self, busy_s: float, audio_s: float) -> None:
        self.audio_seconds.inc(audio_s)
        if audio_s > 0:
            self.rtf.observe(busy_s / audio_s)
            self._recent_rtf.append(busy_s / audio_s)

    @property
    def recent_ttfa_s(self) -> float | None:
        return _mean(self._recent_ttfa)

    @property
    def recent_rtf(self) -> float | None:
        return _mean(self._recent_rtf)

    def memory_bytes(self) -> int:
        """Resident bytes of this process and of the children it speaks through."""
        total = int(self._process.memory_info().rss)
        for child in self._process.children(recursive=True):
            try:
                total += int(child.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        return total

    def exposition(self) -> bytes:
        return generate_latest(self._registry)


def _mean(values: deque[float]) -> float | None:
    return sum(values) / len(values) if values else None
