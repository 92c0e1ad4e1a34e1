"""`fleet doctor`: what on this machine keeps the fleet from working, and how to mend it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from fleet.doctor import examine
from fleet.doctor_site import Finding, Level, Site
from fleet.telling import errors_told

_out = Console()

_STYLES = {Level.ok: "green", Level.not_applicable: "dim", Level.warning: "yellow", Level.problem: "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
    settings: Annotated[
        Path, typer.Option(help="Where worker.env and balancer.env of the units lie; this shell's variables go first.")
    ] = Path("/etc/chatterbox-fleet"),
    python: Annotated[str | None, typer.Option(help="The installation's Python; default: this one.")] = None,
    nginx: Annotated[Path, typer.Option(help="nginx's main configuration.")] = Path("/etc/nginx/nginx.conf"),
    units: Annotated[Path, typer.Option(help="Where the units are installed.")] = Path("/etc/systemd/system"),
) -> None:
    """Examine this machine; the exit code is 1 where there is a problem. Nothing is changed."""
    with errors_told():
        site = Site.of(settings=settings, python=python, nginx_configuration=nginx, units=units)
        found: dict[str, Finding] = {}
        for name, finding in examine(site):
            found[name] = finding
            if not as_json:
                _show(name, finding)
        if as_json:
            told = {name: {"level": f.level, "said": f.said, "mend": f.mend} for name, f in found.items()}
            typer.echo(json.dumps({"checks": told}, indent=2))
        raise typer.Exit(1 if any(finding.level is Level.problem for finding in found.values()) else 0)


def _show(name: str, finding: Finding) -> None:
    line = Text.assemble((f"{finding.level:<15}", _STYLES[finding.level]), (f"{name}: ", "bold"), finding.said)
    _out.print(line, soft_wrap=True)
    if finding.mend is not None:
        _out.print(Text(f"{'':15}mend: {finding.mend}"), soft_wrap=True)
