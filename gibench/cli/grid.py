"""What `run`, `sweep` and `utility` share: run what is asked for with progress, then print the rows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import cast

import typer

from gibench.cell import Cell
from gibench.cli import table
from gibench.cli.console import note, print_rows, warn
from gibench.cli.how import How
from gibench.cli.plan import print_plan
from gibench.cli.progress import GridProgress
from gibench.delivery import Delivery
from gibench.job import Job
from gibench.mlflow_store import check_address
from gibench.registry import GROUPS, clash, clashes, entries
from gibench.result import STATUSES, StoredRow
from gibench.results import Results
from gibench.results.kinds import all_rows
from gibench.results.place import makeable
from gibench.sweep.choice import Choice
from gibench.sweep.request import Request
from gibench.sweep.run import prepare, run_jobs
from gibench.sweep.suite import Suite
from gibench.utility.request import Utility


def run_suite(
    suite: Suite, how: How, choice: Choice, force: bool, pictures: bool, as_json: bool, dry_run: bool
) -> None:
    """Run the cells of a suite, then what tells the costs of its defenses, and print the rows.

    Raises:
        typer.Exit: with 1 if some cell failed or timed out, with 130 on Ctrl-C.
    """
    with _interruptible():
        results, again = Results(suite.results, suite.experiment), frozenset(STATUSES) if force else how.retried
        stored = _stored(results, again)
        chosen = cast(list[Cell], _prepared([suite], how, dry_run, stored, choice.values))
        with how.sharing_threads():
            costs = Utility.of_suite(suite, chosen) if suite.utility else []
        # So that a wrong request fails before anything runs.
        trials = choice.part(_prepared(costs, how, dry_run, stored))
        cells = choice.part(chosen)
        if dry_run:
            print_plan(suite, cells, results, again, as_json)
            if costs and not as_json:
                print_plan(costs[0], trials, results, again, as_json)
            return
        rows = _run(suite, cells, results, how, force, pictures)
        if costs:
            _run(costs[0], trials, results, how, force)
        _finish(rows, as_json, lambda: table.print_cells(rows, results, suite))


def run_utility(request: Utility, how: How, choice: Choice, force: bool, as_json: bool, dry_run: bool) -> None:
    """Run what `gibench utility` is asked for, and print the rows.

    Raises:
        typer.Exit: with 130 on Ctrl-C.
    """
    with _interruptible():
        results, again = Results(request.results, request.experiment), frozenset(STATUSES) if force else how.retried
        trials = choice.part(_prepared([request], how, dry_run, _stored(results, again), choice.values))
        if dry_run:
            print_plan(request, trials, results, again, as_json)
            return
        rows = _run(request, trials, results, how, force)
        _finish(rows, as_json, lambda: table.print_trials(rows))


def run_cells(request: Request, cells: Sequence[Job], how: How) -> list[StoredRow]:
    """Run these cells as those of a request, without printing them; the stored row of each.

    Raises:
        typer.Exit: with 130 on Ctrl-C.
    """
    with _interruptible():
        results = Results(request.results, request.experiment)
        jobs = _prepared([request], how, False, _stored(results, how.retried), lambda _: list(cells))
        return _run(request, jobs, results, how, force=False)


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        note("interrupted: what is finished is stored, and the same command goes on from there")
        raise typer.Exit(130) from None


def _stored(results: Results, again: Collection[str]) -> frozenset[str]:
    """The keys of what is not run again: whether it can be had anew is not asked."""
    with makeable(results.root):
        return frozenset(row.key for row in all_rows(results) if row.status not in again)


def _prepared(
    requests: Sequence[Request],
    how: How,
    plan: bool,
    stored: Collection[str],
    chosen: Callable[[Sequence[Job]], list[Job]] = list,
) -> list[Job]:
    # Standard output is for the rows, whatever a plugin prints.
    for kind in GROUPS:
        for same in clashes(entries(kind)).values():
            warn(clash(same))
    with redirect_stdout(sys.stderr), how.sharing_threads():
        return prepare(requests, chosen, plan, how.apart, stored)


def _run(
    request: Request, jobs: Sequence[Job], results: Results, how: How, force: bool, pictures: bool = True
) -> list[StoredRow]:
    check_address(request.tracking_uri)
    executor = how.executor(jobs)
    results.create()
    with redirect_stdout(sys.stderr), GridProgress(jobs) as progress:
        wanted = (job.key for job in jobs)
        with Delivery(results, request.tracking_uri, wanted, warn, progress.working):
            return run_jobs(jobs, results, request, progress, executor, force, pictures, how.retried)


def _finish(rows: Sequence[StoredRow], as_json: bool, print_table: Callable[[], None]) -> None:
    if as_json:
        print_rows(row.as_dict() for row in rows)
    elif rows:
        print_table()
    else:
        note("this share has no cells")
    if not all(row.finished for row in rows):
        raise typer.Exit(1)
