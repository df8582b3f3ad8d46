"""One call of `run`, `sweep` or `utility`, from the command line or from Python: what it asks for, then its rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

from gibench.cell import Cell
from gibench.delivery import Delivery
from gibench.job import Job
from gibench.mlflow_store import check_address
from gibench.registry import GROUPS, clash, clashes, entries
from gibench.result import StoredRow
from gibench.results import Results
from gibench.results.kinds import all_rows
from gibench.results.place import makeable
from gibench.sweep.choice import Choice
from gibench.sweep.how import How
from gibench.sweep.request import Request
from gibench.sweep.run import Listener, prepare, run_jobs
from gibench.sweep.suite import Suite
from gibench.utility.request import Utility

Warn = Callable[[str], None]
Listening = Callable[[Sequence[Job]], AbstractContextManager[Listener]]  # entered while such jobs run


@dataclass(frozen=True)
class Call:
    """What is to be run, and known to be possible: the requests with their jobs, in order."""

    how: How
    results: Results
    parts: Sequence[tuple[Request, list[Job]]]
    force: bool = False

    @classmethod
    def of(
        cls, request: Request, how: How, choice: Choice, warn: Warn, force: bool = False, plan: bool = False
    ) -> Call:
        """What a request asks for; after a suite's cells come the runs that tell what its defenses cost.

        Args:
            request: what is wanted.
            how: it is run.
            choice: which of its jobs.
            warn: is told of plugins that hide one another.
            force: run finished jobs again.
            plan: check no more than a plan needs.

        Raises:
            UsageError: see `gibench.sweep.run.prepare`; or the results folder cannot be read.
        """
        for kind in GROUPS:
            for same in clashes(entries(kind)).values():
                warn(clash(same))
        results = Results(request.results, request.experiment)
        stored = _stored(results, how.run_again(force))
        with how.sharing_threads():
            chosen = prepare([request], choice.values, plan, how.apart, stored)
            costs = _costs(request, chosen)
            # So that a wrong request fails before anything runs.
            trials = prepare(costs, plan=plan, apart=how.apart, stored=stored)
        parts: list[tuple[Request, list[Job]]] = [(request, choice.part(chosen))]
        return cls(how, results, [*parts, *((costs[0], choice.part(trials)) for _ in costs[:1])], force)

    @classmethod
    def of_jobs(cls, request: Request, jobs: Sequence[Job], how: How) -> Call:
        """The same of certain jobs, which are run as those of a request.

        Raises:
            UsageError: see `of`.
        """
        results = Results(request.results, request.experiment)
        stored = _stored(results, how.retried)
        return cls(how, results, [(request, prepare([request], lambda _: list(jobs), apart=how.apart, stored=stored))])

    def run(self, listening: Listening, warn: Warn, pictures: bool = True) -> list[list[StoredRow]]:
        """Run what is not stored yet; the rows of each part.

        Args:
            listening: makes what is told how the jobs of a part get on.
            warn: is told of a tracking store that fails, from other threads too.
            pictures: keep the image grids.

        Raises:
            UsageError: no store has such an address, or the results folder cannot be made.
        """
        found = []
        for request, jobs in self.parts:
            check_address(request.tracking_uri)
            executor = self.how.executor(jobs)
            self.results.create()
            wanted = (job.key for job in jobs)
            with (
                listening(jobs) as listener,
                Delivery(self.results, request.tracking_uri, wanted, warn, listener.working),
            ):
                how = self.force, pictures, self.how.retried
                found.append(run_jobs(jobs, self.results, request, listener, executor, *how))
        return found


def _stored(results: Results, again: Collection[str]) -> frozenset[str]:
    """The keys of what is not run again: whether it can be had anew is not asked."""
    with makeable(results.root):
        return frozenset(row.key for row in all_rows(results) if row.status not in again)


def _costs(request: Request, chosen: Sequence[Job]) -> list[Utility]:
    if not isinstance(request, Suite) or not request.utility:
        return []
    return Utility.of_suite(request, cast(list[Cell], chosen))
