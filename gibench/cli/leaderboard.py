"""`gibench leaderboard`: the table of what is stored."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gibench.cli.options import Debug, Experiment, Json, Results, TrackingUri
from gibench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Group

    from gibench.result import Row

_WIDTH = 200  # characters of a table that goes to a file or a pipe
_LEAST_WIDTH = 110  # a narrower terminal wraps the lines itself


class Format(StrEnum):
    """How the table is written."""

    TABLE = "table"
    MD = "md"
    CSV = "csv"
    JSON = "json"


def leaderboard(
    form: Annotated[
        Format, typer.Option("--format", help="table and md: means over the seeds; csv and json: every stored row.")
    ] = Format.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write there, not to standard output.")
    ] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="csv and json: every stored training run of gibench utility instead.")
    ] = False,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Show rows of this file, of gibench export or a CSV of rows, and stored ones only if an option says "
            "where they are.",
        ),
    ] = None,
    results: Results = None,
    tracking_uri: TrackingUri = None,
    experiment: Experiment = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show what is stored, without running anything.

    Attacks are ranked by exact rate, then median PSNR, within one scenario and defense, on common seeds.
    """
    from gibench.leaderboard import formats, stored
    from gibench.leaderboard.table import summarize, table
    from gibench.registry import readable
    from gibench.utility.job import TrialRow

    form = Format.JSON if as_json else form
    if costs and form not in (Format.CSV, Format.JSON):
        raise UsageError("--costs is for --format csv or json: gibench utility shows its table")
    where = (tracking_uri, experiment, results)
    if costs and files:
        raise UsageError("--costs is of stored training runs: leave --from out")
    rows = _rows(files, where)
    listed = table(stored.trials(*where), TrialRow) if costs else table(rows)
    if form is Format.JSON:
        text = formats.to_json(listed)
    elif form is Format.CSV:
        text = formats.to_csv(listed)
    elif form is Format.MD:  # is published, so defenses state what they were set to (rule E12)
        text = formats.to_markdown(
            summarize(rows), lambda kind, spec: spec if kind == "defense" else readable(kind, spec)
        )
    else:
        text = _drawn(formats.to_terminal(summarize(rows), readable), output is None)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}: choose another --output") from None


def _rows(files: list[Path] | None, where: tuple[str | None, str | None, str | None]) -> list[Row]:
    """The rows that are asked for: stored ones, those of files, or both."""
    from gibench.leaderboard import sources, stored

    if not files:
        return stored.rows(*where)
    return sources.rows(files, stored.rows(*where) if any(where) else None)


def _drawn(group: Group, to_terminal: bool) -> str:
    """The tables as wide as the terminal, with its colours; in a file plain and wide."""
    from rich.console import Console

    console = Console(highlight=False) if to_terminal and sys.stdout.isatty() else Console(width=_WIDTH)
    console.width = max(console.width, _LEAST_WIDTH)
    with console.capture() as captured:
        console.print(group)
    return captured.get()
