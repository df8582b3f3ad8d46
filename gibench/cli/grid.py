"""What `run` and `sweep` share: run a suite's cells with progress, then print them and say where to look further."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gibench.cell import Cell
from gibench.cli.console import note, print_json
from gibench.registry import shorten
from gibench.result import UNFINISHED, Row
from gibench.spec import format_chain, parse_chain
from gibench.sweep.run import prepare, run_cells
from gibench.sweep.suite import Suite
from gibench.tracking import Store

_GRIDS_SHOWN = 8


def run_suite(suite: Suite, force: bool, as_json: bool, dry_run: bool) -> None:
    """Run the cells of a suite, print the rows, and exit with 1 if some cell failed or timed out."""
    cells = prepare(suite)
    if dry_run:
        _print_cells(cells, as_json)
        return
    store = Store(suite.tracking_uri, suite.experiment)
    try:
        with _progress(len(cells)) as listener:
            runs = run_cells(cells, store, suite, listener, force)
    except KeyboardInterrupt:
        note(f"interrupted: {listener.done} of {len(cells)} cells are finished and stored; the same command goes on")
        raise typer.Exit(130) from None
    stored = {row["run_id"]: row for row in store.rows()}
    rows = [stored[run] for run in runs]
    if as_json:
        print_json(rows)
    else:
        _print_rows(rows, store, suite)
    if any(row["status"] in UNFINISHED for row in rows):
        raise typer.Exit(1)


def title(cell: Cell | Row) -> str:
    """A cell in a few words: only what differs from the defaults."""
    values = asdict(cell) if isinstance(cell, Cell) else cell
    parts = [str(shorten("attack", values["attack"]))]
    parts.append(format_chain(shorten("defense", spec) for spec in parse_chain(values["defense"])))
    parts += [str(shorten(kind, values[kind])) for kind in ("dataset", "model")]
    return " | ".join([*parts, f"batch {values['batch_size']}", f"seed {values['seed']}"])
