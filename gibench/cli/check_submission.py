"""`gibench check-submission`: whether somebody's rows keep the rules and are what their cells give."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gibench.cli.console import note, print_json, say, warn
from gibench.cli.options import Debug, Json
from gibench.sweep.how import How

if TYPE_CHECKING:
    from gibench.submission.check import Report
    from gibench.submission.findings import Finding


def check_submission(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What gibench export wrote.")],
    rerun: Annotated[
        int, typer.Option("--rerun", metavar="K", min=0, help="Run so many of its cells again and compare.")
    ] = 3,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="S", min=0, help="Picks them. Default: another each time.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a submission: its rules, that rows are what their images say, and some cells by running them again.

    A line for each fault names the row and the mend. Exit code 1 if there is one, 2 if the file is refused.
    """
    from gibench.submission.check import check

    with redirect_stdout(sys.stderr):  # whatever a plugin prints
        report = check(file)
        found = [*report.faults, *_run_again(report, rerun, seed)]
    for line in report.unchecked:
        warn(line)
    if as_json:
        print_json([fault._asdict() for fault in found])
    else:
        for fault in found:
            say(str(fault))
    rows, faults = len(report.submission.rows), len(found)
    note(f"{rows} rows checked: {faults} fault{'' if faults == 1 else 's'}")
    if found:
        raise typer.Exit(1)


def _run_again(report: Report, count: int, seed: int | None) -> list[Finding]:
    """Run some cells in processes of their own, and compare."""
    import secrets

    from gibench.errors import UsageError
    from gibench.result import Row
    from gibench.submission import rerun
    from gibench.submission.findings import Finding, named

    submission = report.submission
    if not count:
        return []
    able = rerun.eligible(submission.rows)
    seed = secrets.randbelow(2**32) if seed is None else seed
    picked = rerun.picked(able, count, seed)
    taken = sum(row.runtime_s or 0 for row in picked)
    note(
        f"running {len(picked)} cells again of {len(able)} that can be run here, picked by --seed {seed}; "
        f"their attacks took {taken:.0f} s there"
    )
    found, jobs = [], {}
    for number, row in enumerate(picked):
        jobs[number] = rerun.cell_of(row)
        try:
            jobs[number].check()
        except UsageError as error:
            found.append(Finding(named(row), f"its cell cannot be run ({error})", "export what was run"))
            del jobs[number]
    executor = How().executor(list(jobs.values()))
    for number, result in executor.results(iter(jobs.items()), Row, _quietly):
        row = picked[number]
        note(f"ran {named(row)}")
        images = submission.images.get(row.cell)
        found += rerun.differences(row, images, result, submission.codes.get(row.cell))
    return found


def _quietly(message: str, fraction: float | None = None) -> None:
    """A line a cell is enough."""
