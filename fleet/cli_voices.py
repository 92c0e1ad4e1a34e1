"""`fleet voices`: list, add and remove voices; carry a whole library from one fleet to another."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fleet.archive import export_library, read_archive
from fleet.errors import InvalidValue, VoiceNotFound
from fleet.legacy import read_legacy
from fleet.library_client import LibraryClient
from fleet.library_contract import Voice, name_key
from fleet.library_plan import Application, Plan
from fleet.telling import errors_told, tell

app = typer.Typer(invoke_without_command=True, help="List voices, the default one first; or change the library.")
_out = Console()

Replace = Annotated[bool, typer.Option("--replace", help="Put these in the place of others of the same names.")]


@app.callback()
def list_voices(context: typer.Context) -> None:
    """List the voices, the default one first."""
    if context.invoked_subcommand is not None:
        return
    with errors_told(), LibraryClient() as client:
        table = Table("id", "name", "language", "status", "description", "also answers to")
        for voice in sorted(client.voices(), key=lambda voice: not voice.default):
            status = "default" if voice.default and voice.status == "ready" else voice.status
            names = ", ".join(voice.aliases)
            table.add_row(voice.id, voice.name, voice.language, status, voice.reason or voice.description, names)
        _out.print(table)


@app.command()
def add(
    files: Annotated[list[Path], typer.Argument(help="Recordings of one voice: WAV, MP3, FLAC, OGG, M4A or WebM.")],
    name: Annotated[str | None, typer.Option(help="Default: the first file's name.")] = None,
    language: Annotated[str | None, typer.Option(help="A language tag such as de.")] = None,
    description: Annotated[str, typer.Option()] = "",
    alias: Annotated[list[str] | None, typer.Option(help="Another name it answers to; may be repeated.")] = None,
    default: Annotated[bool, typer.Option("--default", help="Speak with it where a request names none.")] = False,
) -> None:
    """Make a voice from recordings."""
    with errors_told(), LibraryClient() as client, ExitStack() as stack:
        opened = [(path.name, stack.enter_context(path.open("rb"))) for path in files]
        voice = client.create_voice(
            opened, name=name, language=language, description=description, aliases=alias or (), default=default
        )
        _out.print(voice.id)
        for sample in voice.samples:
            report = sample.report
            tell(f"{sample.filename}: {report.duration_s:.1f} s, {report.loudness_lufs:.0f} LUFS")
            for note in report.notes:
                tell(f"  {note}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="A voice's id, name or alias.")],
    force: Annotated[bool, typer.Option("--force", help="Also out of the emotion profiles that name it.")] = False,
) -> None:
    """Remove a voice."""
    with errors_told(), LibraryClient() as client:
        voice = _found(client, name)
        client.delete_voice(voice.id, force=force)
        tell(f"removed {voice.name}")


@app.command("export")
def export_command(file: Annotated[Path, typer.Argument(help="The zip to write.")]) -> None:
    """Write all recordings, voices and emotion profiles into one file."""
    with errors_told(), LibraryClient() as client:
        if not file.parent.is_dir():
            raise InvalidValue(f"there is no folder {file.parent}", param="file")
        voices, emotions = export_library(client, file)
        tell(f"wrote {file}, voices: {voices}, emotions: {emotions}")


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="A zip that export wrote.")], replace: Replace = False
) -> None:
    """Add the voices and emotion profiles of such a file; what is there already is left as it is."""
    with errors_told(), LibraryClient() as client, read_archive(file) as plan:
        _apply(client, plan, replace=replace)


@app.command("import-legacy")
def import_legacy(
    directory: Annotated[Path, typer.Argument(help="saved_voices, storage, or the folder that holds them.")],
    replace: Replace = False,
) -> None:
    """Add the voices and emotions of an older Chatterbox server, from its recordings alone."""
    with errors_told(), LibraryClient() as client:
        _apply(client, read_legacy(directory), replace=replace)


def _apply(client: LibraryClient, plan: Plan, *, replace: bool) -> None:
    refused = len(plan.skipped)
    for line in plan.skipped:
        tell(f"skipped: {line}")
    for outcome in Application(client, replace=replace).apply(plan):
        tell(outcome.line)
        refused += not outcome.done
    if refused:
        tell(f"{refused} of these were not taken over; running this again completes what can be")
        raise typer.Exit(1)


def _found(client: LibraryClient, name: str) -> Voice:
    key = name_key(name)
    for voice in client.voices():
        if key in {name_key(known) for known in (voice.id, voice.name, *voice.aliases)}:
            return voice
    raise VoiceNotFound(f"there is no voice {name!r}")
