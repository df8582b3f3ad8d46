"""`gibench reproduce`: what a published table claims, run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gibench.cell import CellAxes
from gibench.cli import options
from gibench.cli.console import note, print_rows, warn
from gibench.sweep.how import How

if TYPE_CHECKING:
    from gibench.reproduce import Line

_WIDTH = 200  # characters


@options.takes_axes(CellAxes, "device", "threads")
def reproduce(
    axes: dict[str, Any],
    how: How,
    name: Annotated[str, typer.Argument(metavar="NAME", help="README, or a suite whose rows are published.")],
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Only the cheapest cells: some minute of attacks, each kind of line once."),
    ] = False,
    results: options.Results = None,
    tracking_uri: options.TrackingUri = None,
    experiment: options.Experiment = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Run the cells behind a published table, and print what it claims beside what they give here.

    A line agrees if its exact rate is the same and its PSNR within rounding; seconds are never judged. What is
    finished is not run again. Exit code 1 if a line does not agree.
    """
    from gibench import reproduce as claims
    from gibench.axes import axes_of
    from gibench.cli.grid import run_cells
    from gibench.errors import UsageError
    from gibench.result import Row
    from gibench.sweep import named
    from gibench.sweep.suite import Suite

    if several := [axis for axis, values in axes.items() if len(values) > 1]:
        raise UsageError(f"--{several[0]} is given more than once: a table is run again on one machine")
    machine = {axis: axes_of(CellAxes)[axis].canonical(values[0]) for axis, values in axes.items()}
    where = options.given(results=results, tracking_uri=tracking_uri, experiment=experiment)
    lines: list[Line] = []
    for suite in claims.meant(name):
        plan = claims.plan(suite, quick, machine)
        for line in plan.refused:
            warn(line)
        if not plan.pairs:
            raise UsageError(f"none of the cells of {suite} can be run here: see the warnings above")
        cells = [cell for _, cell in plan.pairs]
        seconds = sum(row.runtime_s or 0.0 for row, _ in plan.pairs)
        note(f"{suite}: {len(cells)} cells, whose attacks took {seconds:.0f} s where they were published")
        rows = run_cells(Suite.read(named.find(Path(suite)), where), cells, how)
        lines += claims.compare(plan, {row.key: row for row in rows if isinstance(row, Row)})
    if as_json:
        print_rows(map(asdict, lines))
    else:
        _print(lines)
    differing = sum(line.agrees is False for line in lines)
    note(f"{len(lines)} lines, of which {differing} do not agree" if differing else f"{len(lines)} lines, all agree")
    if differing:
        raise typer.Exit(1)


def _print(lines: Sequence[Line]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from gibench.text import visible

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("line", overflow="fold")
    for head in ("seeds", "exact claimed", "here", "median PSNR dB claimed", "here", "seconds", "agrees"):
        table.add_column(head, justify="right", no_wrap=True)
    for line in lines:
        figures = [_number(value, digits) for value, digits in ((line.exact_claimed, 3), (line.exact_measured, 3))]
        figures += [_number(value, 2) for value in (line.psnr_claimed, line.psnr_measured)]
        ratio = "-" if line.seconds_ratio is None else f"x {line.seconds_ratio:.2g}"
        agrees = {True: "yes", False: "NO", None: "out of time"}[line.agrees]
        table.add_row(*map(Text, (visible(f"{line.suite}: {line.line}"), line.seeds, *figures, ratio, agrees)))
    console = Console(highlight=False)
    console.width = max(console.width, 110) if console.is_terminal else _WIDTH
    console.print(table)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
