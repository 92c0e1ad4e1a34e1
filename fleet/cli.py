"""The `fleet` command: speak, list voices, look after the workers. It reads the fleet's address from `FLEET_URL`."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fleet import cli_bundle, cli_doctor, cli_models, cli_voices, cli_workers, cli_wyoming
from fleet.client import FleetClient
from fleet.contract import SAMPLE_RATE, AudioFormat, FleetStats, WorkerStats
from fleet.errors import InvalidValue
from fleet.files import whole_file
from fleet.speech_contract import SynthesisRequest
from fleet.telling import errors_told, tell
from fleet.wav import complete_sizes

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Talk to a Chatterbox Fleet.")
app.add_typer(cli_voices.app, name="voices")
app.add_typer(cli_models.app, name="models")
app.add_typer(cli_bundle.app, name="bundle")
app.command()(cli_wyoming.wyoming)
app.command()(cli_doctor.doctor)
for command in (cli_workers.drain, cli_workers.resume, cli_workers.restart):
    app.command()(command)
_out = Console()
_err = Console(stderr=True)

_NAME_WORDS = 6


@app.command()
def say(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; default: named by the text.")
    ] = None,
    voice: Annotated[str | None, typer.Option(help="A voice's id, name or alias.")] = None,
    emotion: Annotated[str | None, typer.Option(help="An emotion profile: neutral, expressive, calm.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same sound, where the engine draws lots.")] = None,
    quality: Annotated[str | None, typer.Option(help="draft, standard or high, where the engine knows them.")] = None,
    language: Annotated[str | None, typer.Option(help="A language tag such as de.")] = None,
    speed: Annotated[float, typer.Option(help="0.25 to 4.")] = 1.0,
    format: Annotated[AudioFormat | None, typer.Option(help="Default: by the file's ending, else wav.")] = None,  # noqa: A002 - the flag's name
    stream: Annotated[bool, typer.Option("--stream", help="Write sound to standard output as it arrives.")] = False,
) -> None:
    """Speak a text into a file, or to standard output with --stream."""
    with errors_told():
        if stream and output is not None:
            raise InvalidValue("--stream writes to standard output; leave out -o", param="output")
        audio_format = _format(output, format)
        request = _request(
            text=sys.stdin.read() if text == "-" else text,
            voice=voice,
            emotion=emotion,
            seed=seed,
            quality=quality,
            language=language,
            speed=speed,
            format=audio_format,
        )
        with FleetClient() as client, client.speak(request) as speech:
            if stream:
                _write_through(speech.pieces)
                return
            path = output or _free_name(request.text, audio_format)
            _save(speech.pieces, path, audio_format)
            ignored = speech.headers.get("x-ignored-parameters")
        tell(f"wrote {path}")
        if ignored:
            tell(f"not honoured by this engine: {ignored}")


@app.command()
def status(
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table up to date until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
) -> None:
    """Show the workers; the exit code is 1 when none is ready."""
    with errors_told(), FleetClient() as client:
        stats = client.stats()
        if not watch:
            _out.print(_status_view(stats))
            raise typer.Exit(0 if stats.totals.ready else 1)
        try:
            with Live(_status_view(stats), console=_out, auto_refresh=False) as live:
                while True:
                    time.sleep(interval)
                    live.update(_status_view(client.stats()), refresh=True)
        except KeyboardInterrupt:
            raise typer.Exit(0) from None


def _request(**fields: object) -> SynthesisRequest:
    try:
        return SynthesisRequest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidValue(f"{first['loc'][0]}: {first['msg'].removeprefix('Value error, ')}") from None


def _format(output: Path | None, asked: AudioFormat | None) -> AudioFormat:
    """The format asked for, which must be the one that the file's name promises."""
    ending = output.suffix.removeprefix(".").lower() if output is not None else ""
    promised = {"ogg": AudioFormat.opus, "raw": AudioFormat.pcm}.get(ending)
    if promised is None and ending in AudioFormat.__members__:
        promised = AudioFormat(ending)
    if promised is None and asked is None and ending:
        known = ", ".join(AudioFormat)
        raise InvalidValue(f"no format is called {ending!r}; give --format or one of: {known}", param="output")
    if promised is not None and asked is not None and promised is not asked:
        raise InvalidValue(f"{output} would hold {asked}, not what its name promises", param="format")
    return asked or promised or AudioFormat.wav


def _free_name(text: str, audio_format: AudioFormat) -> Path:
    """A file name from the text's first words that no file has yet."""
    words = re.findall(r"\w+", text.lower())[:_NAME_WORDS]
    stem = "-".join(words)[:60] or "speech"
    candidates = (Path(f"{stem}{'' if n == 1 else f'-{n}'}.{audio_format}") for n in range(1, sys.maxsize))
    return next(path for path in candidates if not path.exists())


def _save(pieces: Iterator[bytes], path: Path, audio_format: AudioFormat) -> None:
    """All of the answer, or nothing at all."""
    if not path.parent.is_dir():
        raise InvalidValue(f"there is no folder {path.parent}", param="output")
    with whole_file(path) as file:
        for piece in _with_progress(pieces, audio_format):
            file.write(piece)
        file.flush()
        if audio_format is AudioFormat.wav:
            complete_sizes(Path(file.name))
        os.fchmod(file.fileno(), 0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_through(pieces: Iterator[bytes]) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _with_progress(pieces: Iterator[bytes], audio_format: AudioFormat) -> Iterator[bytes]:
    """Show, on a terminal, how much has come: seconds where the format tells them, else bytes."""
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    received = 0
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as progress:
        task = progress.add_task("speaking", total=None)
        for piece in pieces:
            received += len(piece)
            plain = audio_format in (AudioFormat.wav, AudioFormat.pcm)
            told = f"{received / 2 / SAMPLE_RATE:.1f} s of sound" if plain else f"{received / 1024:.0f} KiB"
            progress.update(task, description=told)
            yield piece


def _status_view(stats: FleetStats) -> Group:
    """The workers as a table of 80 columns, and below it why any of them is not ready."""
    reasons = [
        Text(f"{worker.name} is {worker.state} for {worker.since_s:.0f} s: {worker.reason}")
        for worker in stats.workers
        if worker.reason is not None
    ]
    return Group(_status_table(stats), *reasons)


def _status_table(stats: FleetStats) -> Table:
    totals = stats.totals
    devices = sorted({worker.health.device for worker in stats.workers if worker.health is not None})
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        title=f"{totals.ready} of {totals.workers} ready ({', '.join(devices) or 'no device'}), "
        f"{totals.requests} requests, {totals.retries} tried again, {sum(totals.waiting.values())} waiting",
    )
    for name in ("worker", "state", "model"):
        table.add_column(name, no_wrap=True)
    for name in ("busy", "done", "failed", "rtf", "ttfa", "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for worker in stats.workers:
        table.add_row(*_status_row(worker))
    return table


def _status_row(worker: WorkerStats) -> tuple[str, ...]:
    counts = (str(worker.in_flight), str(worker.requests - worker.in_flight), str(worker.failures))
    health = worker.health
    if health is None:
        return (worker.name, worker.state, "-", *counts, "-", "-", "-")
    return (
        worker.name,
        worker.state,
        health.model,
        *counts,
        "-" if health.rtf is None else f"{health.rtf:.3f}",
        "-" if health.ttfa_s is None else f"{health.ttfa_s * 1000:.0f} ms",
        f"{health.memory_bytes / 2**20:.0f}",
    )
