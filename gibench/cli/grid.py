"""What `run` and `sweep` share: run a suite's cells with progress, then print their rows."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict

import typer

from gibench.cell import Cell
from gibench.cli.console import note, print_json
from gibench.cli.progress import GridProgress
from gibench.cli.table import print_rows, title
from gibench.cli.utility import train
from gibench.result import UNFINISHED
from gibench.sweep.run import prepare, run_cells
from gibench.sweep.suite import Suite
from gibench.tracking import Store
from gibench.utility.request import Utility
from gibench.utility.run import prepare as prepare_utility


def run_suite(suite: Suite, force: bool, as_json: bool, dry_run: bool) -> None:
    """Run the cells of a suite and print the rows.

    Raises:
        typer.Exit: with 1 if some cell failed or timed out, with 130 on Ctrl-C.
    """
    try:
        _run_suite(suite, force, as_json, dry_run)
    except KeyboardInterrupt:
        note("interrupted: finished cells are stored, and the same command goes on from there")
        raise typer.Exit(130) from None


def _run_suite(suite: Suite, force: bool, as_json: bool, dry_run: bool) -> None:
    with redirect_stdout(sys.stderr):  # standard output is for the rows, whatever a plugin prints
        cells = prepare(suite)
    if dry_run:
        _print_cells(cells, as_json)
        return
    requests = Utility.of_suite(suite, cells) if suite.utility else []
    prepare_utility(requests)  # so that a wrong request fails before anything runs
    store = Store(suite.tracking_uri, suite.experiment)
    with redirect_stdout(sys.stderr), GridProgress(len(cells)) as progress:
        runs = run_cells(cells, store, suite, progress, force)
    if requests:
        train(requests, force)
    stored = {row["run_id"]: row for row in store.rows()}
    rows = [stored[run] for run in runs]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, store, suite)
    if any(row["status"] in UNFINISHED for row in rows):
        raise typer.Exit(1)


def _print_cells(cells: Sequence[Cell], as_json: bool) -> None:
    if as_json:
        print_json([{"cell": cell.key, **asdict(cell)} for cell in cells])
        return
    for cell in cells:
        typer.echo(f"{cell.key}  {title(cell)}")
    note(f"{len(cells)} cells")
