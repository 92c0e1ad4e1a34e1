"""The rows and panels of the Grafana dashboard, and the query behind each line."""

from __future__ import annotations

from dataclasses import dataclass

_BALANCER = 'instance=~"$balancer"'
_WORKER = 'instance=~"$worker"'


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One graph, or one number: its queries by their legends, and a Grafana unit such as `s` or `percentunit`."""

    title: str
    queries: dict[str, str]
    unit: str = "short"
    number: bool = False
    said: str = ""
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


def _percentiles(metric: str, selector: str) -> dict[str, str]:
    """Of the instances together: from their summed buckets, never from their percentiles."""
    buckets = f"sum by (le) (rate({metric}_bucket{{{selector}}}[$__rate_interval]))"
    return {f"p{100 * q:.0f}": f"histogram_quantile({q}, {buckets})" for q in (0.5, 0.95, 0.99)}


def _rate(metric: str, selector: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{{selector}}}[$__rate_interval]))"


ROWS = (
    Row(
        title="Overview",
        panels=(
            Panel(
                title="Workers ready",
                queries={"ready": f"sum(balancer_worker_ready{{{_BALANCER}}})"},
                number=True,
                width=4,
            ),
            Panel(
                title="Requests a second",
                queries={"all": "sum(fleet:requests:rate5m)"},
                unit="reqps",
                number=True,
                width=4,
            ),
            Panel(
                title="Errors",
                queries={"failed": "fleet:error_ratio:rate5m"},
                unit="percentunit",
                number=True,
                width=4,
                said="Share of the requests that failed by the fleet's fault in the last five minutes.",
            ),
            Panel(
                title="First sound, p95", queries={"p95": "fleet:ttfa_seconds:p95_5m"}, unit="s", number=True, width=4
            ),
            Panel(title="RTF, p95", queries={"p95": "fleet:rtf:p95_5m"}, number=True, width=4),
            Panel(
                title="Speech a second",
                queries={"seconds of sound": "fleet:audio_seconds:rate5m"},
                unit="s",
                number=True,
                width=4,
            ),
            Panel(
                title="Requests by outcome",
                queries={"{{outcome}}": _rate("balancer_requests_total", _BALANCER, "outcome")},
                unit="reqps",
                width=12,
            ),
            Panel(
                title="In flight and waiting",
                queries={
                    "in flight": f"sum(balancer_in_flight{{{_BALANCER}}})",
                    "waiting, {{priority}}": f"sum by (priority) (balancer_waiting{{{_BALANCER}}})",
                },
                width=12,
            ),
        ),
    ),
    Row(
        title="Latency",
        panels=(
            Panel(
                title="First sound at the workers", queries=_percentiles("chatterbox_ttfa_seconds", _WORKER), unit="s"
            ),
            Panel(
                title="First byte at the balancer",
                queries=_percentiles("balancer_first_byte_seconds", _BALANCER),
                unit="s",
            ),
            Panel(title="Wait for a place", queries=_percentiles("balancer_queue_seconds", _BALANCER), unit="s"),
            Panel(title="Real-time factor", queries=_percentiles("chatterbox_rtf", _WORKER)),
            Panel(title="Whole requests", queries=_percentiles("balancer_request_seconds", _BALANCER), unit="s"),
            Panel(
                title="Event loop of the balancer",
                queries={"{{instance}}": f"balancer_loop_lag_seconds{{{_BALANCER}}}"},
                unit="s",
                said="The longest that it was late in the last 10 s.",
            ),
        ),
    ),
    Row(
        title="Workers",
        panels=(
            Panel(
                title="State",
                queries={"{{worker}} {{state}}": f"balancer_worker_state{{{_BALANCER}}} == 1"},
            ),
            Panel(title="In flight", queries={"{{worker}}": f"sum by (worker) (balancer_in_flight{{{_BALANCER}}})"}),
            Panel(
                title="Characters pending",
                queries={"{{worker}}": f"sum by (worker) (balancer_pending_chars{{{_BALANCER}}})"},
            ),
            Panel(
                title="Speech a second",
                queries={"{{instance}}": _rate("chatterbox_audio_seconds_total", _WORKER, "instance")},
                unit="s",
            ),
            Panel(
                title="Syntheses by outcome",
                queries={"{{outcome}}": _rate("chatterbox_syntheses_total", _WORKER, "outcome")},
                unit="ops",
            ),
            Panel(title="Memory", queries={"{{instance}}": f"chatterbox_memory_bytes{{{_WORKER}}}"}, unit="bytes"),
        ),
    ),
    Row(
        title="Engine",
        panels=(
            Panel(
                title="Decode steps a second",
                queries={"{{instance}}": f"chatterbox_decode_steps_per_second{{{_WORKER}}}"},
                unit="suffix: it/s",
            ),
            Panel(
                title="Rows of a decode step",
                queries={
                    "{{instance}}": _rate("chatterbox_decode_step_rows_total", _WORKER, "instance")
                    + " / "
                    + _rate("chatterbox_decode_steps_total", _WORKER, "instance")
                },
            ),
            Panel(
                title="Slots and who waits for one",
                queries={
                    "{{instance}} used": f"chatterbox_kv_slots_used{{{_WORKER}}}",
                    "{{instance}} there": f"chatterbox_kv_slots{{{_WORKER}}}",
                    "{{instance}} waiting": f"chatterbox_sequences_waiting{{{_WORKER}}}",
                },
            ),
            Panel(
                title="Hops too late",
                queries={"{{instance}}": "worker:hops_late:ratio5m"},
                unit="percentunit",
                said="Share of the hops that listeners heard a gap before.",
            ),
            Panel(
                title="Memory of the GPU",
                queries={"{{instance}}": f"chatterbox_device_bytes{{{_WORKER}}}"},
                unit="bytes",
            ),
            Panel(
                title="Jobs",
                queries={
                    "{{instance}} running": f"chatterbox_running_jobs{{{_WORKER}}}",
                    "{{instance}} queued": f"chatterbox_queued_jobs{{{_WORKER}}}",
                },
            ),
        ),
    ),
    Row(
        title="Trouble",
        panels=(
            Panel(
                title="Errors, long and short",
                queries={
                    "5 min": "fleet:error_ratio:rate5m",
                    "1 h": "fleet:error_ratio:rate1h",
                    "6 h": "fleet:error_ratio:rate6h",
                },
                unit="percentunit",
            ),
            Panel(
                title="Retries by what failed",
                queries={"{{code}}": _rate("balancer_retries_total", _BALANCER, "code")},
                unit="ops",
            ),
            Panel(
                title="Ejections",
                queries={"{{worker}}": f"max by (worker) (balancer_worker_ejections{{{_BALANCER}}})"},
            ),
            Panel(
                title="Starts in an hour",
                queries={"{{instance}}": f"changes(chatterbox_start_time_seconds{{{_WORKER}}}[1h])"},
            ),
            Panel(
                title="Refused for want of room", queries={"share": "fleet:overload_ratio:rate5m"}, unit="percentunit"
            ),
            Panel(
                title="Free on the library's disk",
                queries={"{{instance}}": f"chatterbox_disk_free_bytes{{{_WORKER}}}"},
                unit="bytes",
            ),
        ),
    ),
    Row(
        title="Library",
        panels=(
            Panel(
                title="Voices",
                queries={
                    "all": f"max(chatterbox_voices{{{_WORKER}}})",
                    "not yet prepared": f"max(chatterbox_voices_pending{{{_WORKER}}})",
                },
            ),
            Panel(
                title="Voices prepared",
                queries={"{{outcome}}": _rate("chatterbox_voices_prepared_total", _WORKER, "outcome")},
                unit="ops",
            ),
            Panel(
                title="Voices found in memory",
                queries={
                    "share": f"sum(rate(chatterbox_voice_cache_hits_total{{{_WORKER}}}[$__rate_interval])) / "
                    f"(sum(rate(chatterbox_voice_cache_hits_total{{{_WORKER}}}[$__rate_interval])) + "
                    f"sum(rate(chatterbox_voice_cache_misses_total{{{_WORKER}}}[$__rate_interval])))"
                },
                unit="percentunit",
            ),
        ),
    ),
)
