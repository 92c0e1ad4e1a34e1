"""`fleet models`: fetch a model's files ahead of use, hold them against their digests, list what is here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from fleet import models
from fleet.errors import InvalidValue
from fleet.telling import errors_told, tell

app = typer.Typer(no_args_is_help=True, help="Fetch a model's files for use without a network, and check them.")
_out = Console()
_err = Console(stderr=True)

Root = Annotated[Path, typer.Option("--root", envvar="FLEET_MODELS", help="Where fetched models lie.")]
_ROOT = Path("models")


@app.command()
def fetch(
    reference: Annotated[
        str, typer.Argument(help="OWNER/NAME@COMMIT; a branch or tag is taken as the commit it is now.")
    ] = f"{models.CHATTERBOX}@main",
    root: Root = _ROOT,
    file: Annotated[
        list[str] | None, typer.Option("--file", help="A file to fetch; may be repeated. Default: all a worker reads.")
    ] = None,
) -> None:
    """Download a model, going on where an earlier try ended, and print the directory to give as --checkpoint."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with errors_told():
        with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as progress:
            tasks: dict[str, TaskID] = {}

            def told(name: str, here: int, whole: int) -> None:
                if name not in tasks:
                    tasks[name] = progress.add_task(name, total=whole)
                progress.update(tasks[name], completed=here)

            directory = models.fetch(reference, root, names=file or models.CHATTERBOX_FILES, told=told)
        typer.echo(directory.absolute())


@app.command()
def verify(
    directory: Annotated[Path | None, typer.Argument(help="One model's directory; default: all of them.")] = None,
    root: Root = _ROOT,
) -> None:
    """Hold every file against the digest noted when it was fetched; the exit code is 1 where one differs."""
    with errors_told():
        wanted = [directory] if directory is not None else models.directories(root)
        if not wanted:
            raise InvalidValue(f"there is no fetched model under {root}")
        broken = False
        for path in wanted:
            found = models.faults(path)
            broken = broken or bool(found)
            for fault in found:
                tell(f"{path}: {fault}")
            if not found:
                typer.echo(f"{path}: whole")
        if broken:
            tell("`fleet models fetch` with the same commit replaces what differs")
            raise typer.Exit(1)


@app.command("list")
def list_models(root: Root = _ROOT) -> None:
    """List the fetched models."""
    with errors_told():
        table = Table("model", "commit", "files", "size", "directory")
        for path in models.directories(root):
            manifest = models.read_manifest(path)
            if manifest is not None:
                size = sum(file.size for file in manifest.files) / 2**20
                cells = (manifest.repository, manifest.revision[:12], str(len(manifest.files)), f"{size:.0f} MiB")
                table.add_row(*cells, str(path))
        _out.print(table)
