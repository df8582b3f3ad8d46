"""Runs jobs one after the other; every finished one is stored at once, and what is stored is not run again.

Several processes may run the same jobs: each job is run by the one that has the claim to it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from textwrap import shorten
from typing import Protocol

from gibench.job import Job
from gibench.result import StoredRow
from gibench.results import Results
from gibench.results.grids import Ended
from gibench.sweep.request import Request

_POLL = 0.2  # seconds between looks at what other processes are running


class Listener(Protocol):
    """Is told how a grid gets on."""

    def started(self, number: int, job: Job) -> None:
        """The job with this number, from 1, begins."""

    def working(self, message: str, fraction: float | None = None) -> None:
        """What the job is doing, and the share done if known."""

    def finished(self, number: int, row: StoredRow, stored_before: bool) -> None:
        """The job is stored, just now or by an earlier call."""


def prepare(
    requests: Iterable[Request], chosen: Callable[[Sequence[Job]], list[Job]] = list, plan: bool = False
) -> list[Job]:
    """The jobs that are asked for, each once and known to be possible.

    Args:
        requests: whose jobs are wanted.
        chosen: picks which of them.
        plan: check no more than a plan needs, see `gibench.job.Job.check`.

    Raises:
        UsageError: something in a request is wrong, or the data for a job cannot be had.
    """
    jobs = list(dict.fromkeys(job for request in requests for job in request.jobs()))
    jobs = chosen(jobs)
    for job in jobs:
        job.check(plan)
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    results: Results,
    request: Request,
    listener: Listener,
    force: bool = False,
    pictures: bool = True,
) -> list[StoredRow]:
    """Run what is not stored yet as one grid; the stored row of every job, in order.

    Ctrl-C keeps what is stored: the grid is closed as KILLED and the interruption goes on.

    Args:
        jobs: from `prepare`.
        results: where they are looked up and kept.
        request: what they were made of, as the grid's settings.
        listener: is told of each.
        force: run finished jobs again.
        pictures: keep the image grids.
    """
    stored = {row.key: row for row in results.rows(request.row)}
    rows: dict[int, StoredRow] = {}
    waiting = deque(enumerate(jobs, start=1))
    elsewhere = 0  # how many in a row another process is at
    grid: str | None = None
    ended: Ended = "KILLED"
    try:
        while waiting:
            number, job = waiting.popleft()
            row = None if force else stored.get(job.key)
            if not (row and row.finished):
                claim = results.claim(job.key)
                if claim is None:
                    waiting.append((number, job))
                    elsewhere += 1
                    if elsewhere >= len(waiting):
                        listener.working("waiting for cells that another process is running")
                        time.sleep(_POLL)
                    continue
                with claim:
                    row = _done_meanwhile(results, request, job, stored)
                    if row is None:
                        grid = grid or results.grids.open(getattr(request, "name", None) or "grid", _axes(request))
                        listener.started(number, job)
                        result = job.run(listener.working)
                        rows[number] = results.save(result, grid, pictures=pictures, force=force)
                        listener.finished(number, rows[number], stored_before=False)
            elsewhere = 0
            if row:
                rows[number] = row
                listener.finished(number, row, stored_before=True)
        ended = "FINISHED"
    except Exception:
        ended = "FAILED"
        raise
    finally:
        if grid:
            results.grids.close(grid, ended)
    return [rows[number] for number in sorted(rows)]


def _done_meanwhile(results: Results, request: Request, job: Job, stored: dict[str, StoredRow]) -> StoredRow | None:
    """The row that another process has stored since this one began, how ever it ended."""
    row = results.find(request.row, job.key)
    before = stored.get(job.key)
    return row if row and not (before and before.run_id == row.run_id) else None


def _axes(request: Request) -> dict[str, str]:
    """What varies, for the parent run; MLflow refuses long texts."""
    settings = request.model_dump(exclude={"name", "results", "tracking_uri", "experiment"}, exclude_none=True)
    return {key: shorten(str(value), 500, placeholder=" ...") for key, value in settings.items() if value}
