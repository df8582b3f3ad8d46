"""Where things are printed: results on standard output, everything else on standard error."""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any

import typer

from gibench.jsonable import array_of
from gibench.text import visible


def print_json(value: Any) -> None:
    """JSON on standard output; NaN and infinity are errors."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """The same of flat objects, of which there may be many."""
    typer.echo(array_of(rows))


@contextmanager
def results_alone() -> Iterator[None]:
    """In the body, and again when the process ends, what anybody writes to standard output goes to standard error.

    Python's prints, those of C code and those of other processes alike: standard output is for results.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        atexit.register(_to_standard_error)  # before what the body has left to be done, and what C code still holds


def _to_standard_error() -> None:
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        os.dup2(2, 1)


def say(line: str) -> None:
    """One line of a result for people to read, on standard output."""
    typer.echo(visible(line))


def say_all(lines: Iterable[str]) -> None:
    """Lines of a result, at once."""
    typer.echo("\n".join(map(visible, lines)))


def note(message: str) -> None:
    """One line for the reader on standard error."""
    print(visible(message), file=sys.stderr)  # typer would write UTF-8 where the stream is ASCII


def warn(message: str) -> None:
    """One warning line on standard error."""
    note(f"warning: {message}")
