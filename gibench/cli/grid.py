"""What `run`, `sweep` and `utility` share: run what is asked for with progress, then print the rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import typer

from gibench.cli import table
from gibench.cli.console import note, print_rows, warn
from gibench.cli.plan import print_plan
from gibench.cli.progress import GridProgress
from gibench.job import Job
from gibench.result import StoredRow
from gibench.sweep.call import Call
from gibench.sweep.choice import Choice
from gibench.sweep.how import How
from gibench.sweep.request import Request
from gibench.sweep.suite import Suite


def run_request(
    request: Request, how: How, choice: Choice, force: bool, as_json: bool, dry_run: bool, pictures: bool = True
) -> None:
    """Run what is asked for, of a suite also what tells the costs of its defenses, and print the rows.

    Raises:
        typer.Exit: with 1 if some cell failed or timed out, with 130 on Ctrl-C.
    """
    with _interruptible():
        with redirect_stdout(sys.stderr):  # standard output is for the rows, whatever a plugin prints
            call = Call.of(request, how, choice, warn, force, dry_run)
        if dry_run:
            for asked, jobs in call.parts[:1] if as_json else call.parts:
                print_plan(asked, jobs, call.results, how.run_again(force), as_json)
            return
        with redirect_stdout(sys.stderr):
            rows = call.run(GridProgress, warn, pictures)[0]

        def print_table() -> None:
            if isinstance(request, Suite):
                table.print_cells(rows, call.results, request)
            else:
                table.print_trials(rows)

        _finish(rows, as_json, print_table)


def run_cells(request: Request, cells: Sequence[Job], how: How) -> list[StoredRow]:
    """Run these cells as those of a request, without printing them; the stored row of each.

    Raises:
        typer.Exit: with 130 on Ctrl-C.
    """
    with _interruptible(), redirect_stdout(sys.stderr):
        return Call.of_jobs(request, cells, how).run(GridProgress, warn)[0]


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note("interrupted: what is finished is stored, and the same command goes on from there")
        raise typer.Exit(130) from None


def _finish(rows: Sequence[StoredRow], as_json: bool, print_table: Callable[[], None]) -> None:
    if as_json:
        print_rows(row.as_dict() for row in rows)
    elif rows:
        print_table()
    else:
        note("this share has no cells")
    if not all(row.finished for row in rows):
        raise typer.Exit(1)
