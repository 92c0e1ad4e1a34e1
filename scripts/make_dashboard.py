#!/usr/bin/env python3
"""Write the Grafana dashboard, deploy/grafana/chatterbox-fleet.json; `--check` only says whether it is up to date."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dashboard_rows import ROWS, Panel

DASHBOARD = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "chatterbox-fleet.json"
_COLUMNS = 24
_HEIGHT = 8
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """Grafana's JSON model, schema version 39 (Grafana 10.4 and newer)."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        panels.append(
            _placed(
                {"type": "row", "title": row.title, "collapsed": False},
                number=len(panels),
                x=0,
                y=y,
                width=_COLUMNS,
                height=1,
            )
        )
        y += 1
        x = height = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            height = _HEIGHT // 2 if panel.number else _HEIGHT
            panels.append(_placed(_panel(panel), number=len(panels), x=x, y=y, width=panel.width, height=height))
            x += panel.width
        y += height
    return {
        "uid": "chatterbox-fleet",
        "title": "Chatterbox Fleet",
        "tags": ["chatterbox"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"},
                _instances("balancer", "Balancer", "balancer_loop_lag_seconds"),
                _instances("worker", "Worker", "chatterbox_start_time_seconds"),
            ]
        },
        "panels": panels,
    }


def _placed(panel: dict[str, Any], *, number: int, x: int, y: int, width: int, height: int) -> dict[str, Any]:
    return {"id": number + 1, **panel, "gridPos": {"x": x, "y": y, "w": width, "h": height}}


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": "stat" if panel.number else "timeseries",
        "title": panel.title,
        "description": panel.said,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _SOURCE, "expr": query, "legendFormat": legend}
            for index, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def _instances(name: str, label: str, metric: str) -> dict[str, Any]:
    """A choice of the instances that serve the metric, all at first."""
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": _SOURCE,
        "query": {"query": f"label_values({metric}, instance)", "refId": name},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the file differs")
    text = json.dumps(dashboard(), indent=2) + "\n"
    if not parser.parse_args().check:
        DASHBOARD.parent.mkdir(exist_ok=True)
        DASHBOARD.write_text(text)
    elif not DASHBOARD.is_file() or DASHBOARD.read_text() != text:
        sys.exit(f"{DASHBOARD} is not what this script writes: run it without --check")


if __name__ == "__main__":
    main()
