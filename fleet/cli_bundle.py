"""`fleet bundle`: everything that a host without a network needs, in one file; and whether such a file is whole."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.bundle import bundle_faults, write_bundle
from fleet.errors import InvalidValue
from fleet.telling import errors_told, tell

app = typer.Typer(invoke_without_command=True, help="Pack source, model and wheels for a host without a network.")

_SOURCE = Path(__file__).parent.parent


@app.callback()
def bundle(
    context: typer.Context,
    output: Annotated[Path, typer.Option("-o", "--output", help="The tar to write.")] = Path("chatterbox-fleet.tar"),
    checkpoint: Annotated[
        Path | None, typer.Option(help="The model's directory, as `fleet models fetch` prints it; default: no model.")
    ] = None,
    source: Annotated[Path, typer.Option(help="This project's source.")] = _SOURCE,
    lock: Annotated[
        str, typer.Option(help="Whose wheels: chatterbox, or serve for the embedded voice.")
    ] = "chatterbox",
    wheels: Annotated[bool, typer.Option("--wheels/--no-wheels", help="Download the lock's wheels into it.")] = True,
) -> None:
    """Pack a bundle. Wheels are for the Python and the platform that this runs on."""
    if context.invoked_subcommand is not None:
        return
    with errors_told():
        if not output.absolute().parent.is_dir():
            raise InvalidValue(f"there is no folder {output.parent}", param="output")
        count = write_bundle(output, source=source, checkpoint=checkpoint, lock=lock, wheels=wheels)
        tell(f"wrote {count} files, {output.stat().st_size / 2**20:.0f} MiB, to {output}")
        tell(f"on the other host: tar -xf {output.name} && chatterbox-fleet-*/install.sh DIR")


@app.command()
def verify(file: Annotated[Path, typer.Argument(help="The tar that bundle wrote.")]) -> None:
    """Hold every file of a bundle against its digest; the exit code is 1 where one differs."""
    with errors_told():
        found = bundle_faults(file)
        for fault in found:
            tell(f"{file}: {fault}")
        if found:
            raise typer.Exit(1)
        typer.echo(f"{file}: whole")
