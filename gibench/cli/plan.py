"""What a dry run prints: the cells, which are done, and how long the others may take."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields

from gibench.brief import title
from gibench.checks import at_hand
from gibench.cli.console import note, print_rows, say_all
from gibench.job import Job
from gibench.results import Results
from gibench.sweep.estimate import Estimate, in_words
from gibench.sweep.request import Request


def print_plan(request: Request, jobs: Sequence[Job], results: Results, again: Collection[str], as_json: bool) -> None:
    """Print a line a job, or as JSON an object; below, how many are done and how long the others may take.

    Args:
        request: that they were made of.
        jobs: in order.
        results: where those are that are done.
        again: the statuses of stored ones that are run again.
        as_json: print JSON.
    """
    rows = results.rows(request.row, diagnostics=True)
    done = {row.key for row in rows if row.status not in again}
    estimate = Estimate(rows)
    if as_json:
        names = [each.name for each in fields(jobs[0])] if jobs else []
        print_rows(
            {"cell": job.key, **{name: getattr(job, name) for name in names}}
            | {"done": job.key in done, "seconds": estimate.seconds(job)}
            for job in jobs
        )
        return
    if jobs:
        say_all(f"{job.key}  {'done' if job.key in done else '-':<4}  {title(job)}" for job in jobs)
    waiting = [job for job in jobs if job.key not in done]
    note(f"{len(jobs)} cells, {len(jobs) - len(waiting)} done{_time(estimate, waiting)}")
    if unread := [name for name in sorted({str(getattr(job, "dataset", "")) for job in jobs}) if not at_hand(name)]:
        note(f"not read for this plan, so batches and models are not checked against it: {', '.join(unread)}")


def _time(estimate: Estimate, waiting: Sequence[Job]) -> str:
    """How long the jobs may take, one after the other."""
    if not waiting:
        return ""
    seconds, unknown = estimate.left(waiting)
    if unknown == len(waiting):
        return "; how long the others take is not known, since none like them is stored"
    rest = f"; {unknown} of them are like none that is stored" if unknown else ""
    return f"; the others take about {in_words(seconds)} ({seconds / 3600:.2f} h), one after the other{rest}"
