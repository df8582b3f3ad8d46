"""`gibench leaderboard`: the table of what is stored."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gibench.cli.options import Debug, Experiment, Filter, Json, Results, TrackingUri
from gibench.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from gibench.leaderboard.sections import Report
    from gibench.result import Row

_WIDTH = 200  # characters of a table that goes to a file, or to a pipe where COLUMNS does not say
_LEAST_WIDTH = 60  # a narrower terminal wraps the lines itself


class Format(StrEnum):
    """How the table is written."""

    TABLE = "table"
    MD = "md"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"


_ROWS = (Format.CSV, Format.JSON)  # those that have every stored row


def leaderboard(
    form: Annotated[
        Format,
        typer.Option("--format", help="table, md and latex: means over the seeds; csv and json: every stored row."),
    ] = Format.TABLE,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write there, not to standard output.")
    ] = None,
    filters: Filter = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="A,B,C",
            help="Only these columns, as attack,exact_rate,n_ok; those of csv are the rows', others the summary's.",
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="COLUMN", help="By this column within a scenario, the better end first."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="ATTACK", help="Show seconds over those of this attack, same machine."),
    ] = None,
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option("--compare", metavar="A B", help="Compare two attacks seed by seed instead: sign test, means."),
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

    Attacks are ranked by exact rate, then median PSNR, within one scenario and defense, on common seeds. Means are
    strict: a cell that failed counts with the score of mid-grey images, and n_ok says how many ended ok of those tried.
    """
    form = Format.JSON if as_json else form
    names = None if columns is None else [name.strip() for name in columns.split(",")]
    _check(form, names, baseline, compare, filters, costs)
    where = (tracking_uri, experiment, results)
    if costs and files:
        raise UsageError("--costs is of stored training runs: leave --from out")

    def read(kept: Sequence[str]) -> list[Row]:
        return _rows(files, where, kept)

    if costs:
        text = _written(_training(where), form, names, sort)
    elif compare:
        text = _compared(read(filters or ()), compare, form, sort, output)
    elif form in _ROWS:
        from gibench.leaderboard.table import table

        text = _written(table(read(filters or ())), form, names, sort)
    else:
        text = _summary(read(()), form, filters or (), names, sort, baseline, output)
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {error.strerror or error}: choose another --output") from None


Where = tuple[str | None, str | None, str | None]


def _check(
    form: Format,
    names: Sequence[str] | None,
    baseline: str | None,
    compare: tuple[str, str] | None,
    filters: Sequence[str] | None,
    costs: bool,
) -> None:
    """Refuse options that say nothing together."""
    if costs and form not in _ROWS:
        raise UsageError("--costs is for --format csv or json: gibench utility shows its table")
    if costs and (compare or filters):
        raise UsageError("--costs is of training runs, no cells: leave out --filter and --compare")
    if compare and names:
        raise UsageError("--compare has columns of its own: leave out --columns")
    if baseline is not None and (compare or form in _ROWS):
        raise UsageError("--baseline is for the means of --format table, md or latex: leave it out")


def _rows(files: Sequence[Path] | None, where: Where, filters: Sequence[str]) -> list[Row]:
    """The rows that are asked for: stored ones, those of files, or both."""
    from gibench.leaderboard import choose, sources, stored

    wanted = choose.wanted(filters)  # a mistake is told before anything is read
    found = sources.rows(files, stored.rows(*where) if any(where) else None) if files else stored.rows(*where)
    return choose.filtered(found, wanted)


def _training(where: Where) -> pd.DataFrame:
    from gibench.leaderboard import stored
    from gibench.leaderboard.table import table
    from gibench.utility.job import TrialRow

    return table(stored.trials(*where), TrialRow)


def _written(table: pd.DataFrame, form: Format, names: Sequence[str] | None, sort: str | None) -> str:
    """Lines as they are."""
    from gibench.leaderboard import columns, formats

    table = columns.ordered(table, sort) if sort is not None else table
    if names is not None:
        columns.check(table, names, "--columns")
        table = table[list(names)]
    return formats.to_json(table) if form is Format.JSON else formats.to_csv(table)


def _compared(rows: Sequence[Row], attacks: tuple[str, str], form: Format, sort: str | None, out: Path | None) -> str:
    from gibench.leaderboard import choose, columns, paired
    from gibench.leaderboard.table import grouped
    from gibench.registry import readable

    groups = grouped(choose.mingled(rows))
    first, second = (choose.attack_named(each, groups, readable, "--compare") for each in attacks)
    pairs = paired.compare(first, second, readable)
    if form in _ROWS:
        return _written(pairs, form, None, sort)
    return _shown(paired.of_pairs(pairs if sort is None else columns.ordered(pairs, sort)), form, out)


def _summary(
    rows: Sequence[Row],
    form: Format,
    filters: Sequence[str],
    names: Sequence[str] | None,
    sort: str | None,
    baseline: str | None,
    out: Path | None,
) -> str:
    """Means over the seeds. Filters of attacks take lines away after they were ranked, and change no rank."""
    from gibench.leaderboard import choose, columns
    from gibench.leaderboard.sections import of_summary
    from gibench.leaderboard.table import grouped, kept, summarize
    from gibench.registry import readable

    wanted = choose.wanted(filters)
    ranked = choose.filtered(rows, choose.before_ranking(wanted))
    groups = grouped(ranked)
    baselines = None
    if baseline is not None:
        baselines = choose.attack_named(baseline, grouped(choose.mingled(ranked)), readable, "--baseline")
    summary = kept(summarize(ranked, baselines), choose.filtered([row for some in groups for row in some], wanted))
    summary = columns.ordered(summary, sort) if sort is not None else summary
    return _shown(of_summary(summary, names), form, out)


def _shown(report: Report, form: Format, out: Path | None) -> str:
    """A report for people. What is published states what defenses were set to (rule E12)."""
    from gibench.leaderboard import formats
    from gibench.registry import readable

    if form is Format.TABLE:
        return _drawn(report, out is None)

    def published(kind: str, spec: str) -> str:
        return spec if kind == "defense" else readable(kind, spec)

    if form is Format.MD:
        return formats.markdown(report, published)
    from gibench.leaderboard.latex import to_latex

    return to_latex(report, published)


def _drawn(report: Report, to_terminal: bool) -> str:
    """What rich prints, drawn for the terminal if that is where it goes."""
    from rich.console import Console

    from gibench.leaderboard.terminal import to_terminal as drawn
    from gibench.registry import readable

    has_width = to_terminal and (sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal())
    console = Console(highlight=False) if has_width else Console(width=_WIDTH)
    console.width = max(console.width, _LEAST_WIDTH)
    with console.capture() as captured:
        console.print(drawn(report, readable, console.width))
    return captured.get()
