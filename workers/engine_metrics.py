"""What an engine that decodes tokens counts, for Prometheus: every figure of a scrape is of the same moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from workers.engine.base import EngineFigures

_COUNTERS = {
    "steps": ("chatterbox_decode_steps", "Decode steps."),
    "step_rows": ("chatterbox_decode_step_rows", "Live rows of all decode steps."),
    "tokens": ("chatterbox_speech_tokens", "Speech tokens decoded."),
    "graph_replays": ("chatterbox_graph_replays", "Decode steps run as a captured CUDA graph."),
    "eager_steps": ("chatterbox_eager_steps", "Decode steps run without a graph."),
    "euler_steps": ("chatterbox_euler_steps", "Euler steps from tokens to mel frames."),
    "euler_rows": ("chatterbox_euler_rows", "Live rows of all Euler steps."),
    "hops": ("chatterbox_hops", "Hops of tokens made into sound."),
    "hops_late": ("chatterbox_hops_late", "Hops whose sound came after all sound before it could have been played."),
    "conditionals_computed": ("chatterbox_conditionals_computed", "Voices' conditionals computed."),
    "conditionals_hits": ("chatterbox_conditionals_hits", "Voices' conditionals found ready."),
}
_GAUGES = {
    "slots": ("chatterbox_kv_slots", "Slots of the key/value cache."),
    "slots_used": ("chatterbox_kv_slots_used", "Slots in which a sequence is decoded."),
    "sequences_waiting": ("chatterbox_sequences_waiting", "Sequences waiting for a slot."),
    "device_bytes": ("chatterbox_device_bytes", "Memory allocated on the GPU."),
    "steps_per_s": ("chatterbox_decode_steps_per_second", "Decode steps a second, over the newest."),
}


class DecodingCollector(Collector):
    """Asks for the figures once a scrape; one that is None is left out."""

    def __init__(self, figures: Callable[[], EngineFigures | None]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        if figures is None:
            return
        for field, (name, text) in _COUNTERS.items():
            yield CounterMetricFamily(name, text, value=getattr(figures, field))
        for field, (name, text) in _GAUGES.items():
            if (value := getattr(figures, field)) is not None:
                yield GaugeMetricFamily(name, text, value=value)
