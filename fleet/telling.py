"""What a command says to a person on standard error, and how it ends when it cannot go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from fleet.errors import FleetError

_err = Console(stderr=True)


@contextmanager
def errors_told() -> Iterator[None]:
    """One clear line on standard error and exit code 1."""
    try:
        yield
    except FleetError as error:
        tell(f"error: {error.message}")
        raise typer.Exit(1) from None
    except OSError as error:
        tell(f"error: {error.filename or 'output'}: {error.strerror}")
        raise typer.Exit(1) from None


def tell(line: str) -> None:
    _err.print(line, highlight=False, markup=False, soft_wrap=True)
