"""Runs what is not stored yet; every finished job is stored at once, and what is stored is not run again.

Several processes may run the same jobs: each job is run by the one that has the claim to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from textwrap import shorten
from typing import Protocol

from gibench.job import Job
from gibench.result import UNFINISHED, Result, StoredRow
from gibench.results import Results
from gibench.results.claims import Claim
from gibench.results.grids import Ended
from gibench.sweep.executors import Executor, Numbered
from gibench.sweep.request import Request


class Listener(Protocol):
    """Is told how a grid gets on."""

    def started(self, number: int, job: Job) -> None:
        """The job with this number, from 1, begins."""

    def working(self, message: str, fraction: float | None = None) -> None:
        """What the job is doing, and the share done if known."""

    def finished(self, number: int, row: StoredRow, stored_before: bool) -> None:
        """The job is stored, just now or by an earlier call."""


def prepare(
    requests: Iterable[Request],
    chosen: Callable[[Sequence[Job]], list[Job]] = list,
    plan: bool = False,
    apart: bool = False,
    stored: Collection[str] = (),
) -> list[Job]:
    """The jobs that are asked for, each once and known to be possible.

    Args:
        requests: whose jobs are wanted.
        chosen: picks which of them.
        plan: check no more than a plan needs, see `gibench.job.Job.check`.
        apart: the jobs run in processes of their own, so what others' plugins do is left to show there, as a row.
        stored: the keys of jobs that will not be run, which are not checked.

    Raises:
        UsageError: something in a request is wrong, or the data for a job cannot be had.
    """
    jobs = list(dict.fromkeys(job for request in requests for job in request.jobs()))
    jobs = chosen(jobs)
    for job in jobs:
        if job.key not in stored and not (apart and job.is_prepared_by_others):
            job.check(plan)
    return jobs


def run_jobs(
    jobs: Sequence[Job],
    results: Results,
    request: Request,
    listener: Listener,
    executor: Executor,
    force: bool = False,
    pictures: bool = True,
    retry: Collection[str] = UNFINISHED,
) -> list[StoredRow]:
    """Run what is not stored yet as one grid; the stored row of every job, in order.

    Ctrl-C keeps what is stored: the grid is closed as KILLED and the interruption goes on.

    Args:
        jobs: from `prepare`.
        results: where they are looked up and kept.
        request: what they were made of, as the grid's settings.
        listener: is told of each.
        executor: runs them.
        force: run finished jobs again.
        pictures: keep the image grids.
        retry: of what an earlier call has left without a final status, what is run again, once.
    """
    grid = _Grid(jobs, results, request, listener, force, pictures, retry)
    ended: Ended = "KILLED"
    try:
        due = grid.due()
        for first in due:  # with everything stored, what runs jobs is not even imported
            for number, result in executor.results(chain([first], due), request.row, listener.working):
                grid.done(number, result)
        ended = "FINISHED"
    except Exception:
        ended = "FAILED"
        raise
    finally:
        grid.close(ended)
    return [grid.rows[number] for number in sorted(grid.rows)]


class _Grid:
    """The jobs of one call: those still to be looked at, those claimed, and the rows there are."""

    def __init__(
        self,
        jobs: Sequence[Job],
        results: Results,
        request: Request,
        listener: Listener,
        force: bool,
        pictures: bool,
        retry: Collection[str],
    ) -> None:
        self._results, self._request, self._listener = results, request, listener
        self._force, self._pictures, self._retry = force, pictures, retry
        self._stored = {row.key: row for row in results.rows(request.row)}
        self._waiting = deque(enumerate(jobs, start=1))
        self._claims: dict[int, Claim] = {}
        self._grid: str | None = None
        self.rows: dict[int, StoredRow] = {}

    def due(self) -> Iterator[Numbered | None]:
        """The jobs to run, each claimed; None as long as other processes are at all that are left."""
        elsewhere = 0  # how many in a row
        while self._waiting:
            number, job = self._waiting.popleft()
            row = None if self._force else self._stored.get(job.key)
            if row and row.status not in self._retry:
                self._had(number, row)
                elsewhere = 0
            elif not (claim := self._results.claim(job.key)):
                self._waiting.append((number, job))
                elsewhere += 1
                if elsewhere >= len(self._waiting):
                    self._listener.working("waiting for cells that another process is running")
                    elsewhere = 0
                    yield None
            else:
                elsewhere = 0
                self._claims[number] = claim
                if row := self._done_meanwhile(job):
                    self._claims.pop(number).release()
                    self._had(number, row)
                    continue
                name = getattr(self._request, "name", None) or "grid"
                self._grid = self._grid or self._results.grids.open(name, _axes(self._request))
                self._listener.started(number, job)
                yield number, job

    def done(self, number: int, result: Result) -> None:
        """Store what came of a job."""
        with self._claims.pop(number):
            row = self._results.save(result, self._grid, pictures=self._pictures, force=self._force)
        self.rows[number] = row
        self._listener.finished(number, row, stored_before=False)

    def close(self, ended: Ended) -> None:
        """Give up what was not done, and end the grid."""
        for claim in self._claims.values():
            claim.release()
        if self._grid:
            self._results.grids.close(self._grid, ended)

    def _had(self, number: int, row: StoredRow) -> None:
        self.rows[number] = row
        self._listener.finished(number, row, stored_before=True)

    def _done_meanwhile(self, job: Job) -> StoredRow | None:
        """The row that another process has stored since this one began, how ever it ended."""
        row = self._results.find(self._request.row, job.key)
        before = self._stored.get(job.key)
        return row if row and not (before and before.run_id == row.run_id) else None


def _axes(request: Request) -> dict[str, str]:
    """What varies, for the parent run; MLflow refuses long texts."""
    settings = request.model_dump(exclude={"name", "results", "tracking_uri", "experiment"}, exclude_none=True)
    return {key: shorten(str(value), 500, placeholder=" ...") for key, value in settings.items() if value}
