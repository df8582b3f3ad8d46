"""How a grid gets on: what is done, how it ended, and how long the rest may take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from gibench.axes import axes_of
from gibench.job import Job
from gibench.result import UNFINISHED, StoredRow
from gibench.sweep.estimate import Estimate, seconds_of


class Tally:
    """Counts the jobs of a grid as they end."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._estimate = Estimate()
        self._examples: dict[Any, Job] = {}  # of jobs that differ in their seed alone, which take equally long
        self._waiting: Counter[Any] = Counter()
        for job in jobs:
            self._examples.setdefault(_but_seed(job), job)
            self._waiting[_but_seed(job)] += 1
        self._statuses: Counter[str] = Counter()
        self._before = 0

    def count(self, row: StoredRow, seconds: float | None, stored_before: bool) -> None:
        """One has ended.

        Args:
            row: of the job.
            seconds: that it took; None where that was not seen, and its row says what is known.
            stored_before: by an earlier call.
        """
        self._statuses[row.status] += 1
        self._before += stored_before
        self._waiting[_but_seed(row)] -= 1
        if (took := seconds_of(row) if seconds is None else seconds) is not None:
            self._estimate.add(row, took)

    def counts(self) -> str:
        """How many are done, and of these how many failed and were skipped, in words."""
        failed = sum(self._statuses[status] for status in UNFINISHED)
        named = {"failed": failed, "skipped": self._statuses["skipped"]}
        return ", ".join(
            [f"{self._statuses.total()} done", *(f"{count} {name}" for name, count in named.items() if count)]
        )

    def ended(self) -> str:
        """How many ended how, in words."""
        parts = [f"{count} {status}" for status, count in self._statuses.most_common()] or ["none"]
        return ", ".join(parts) + (f" ({self._before} by an earlier call)" if self._before else "")

    def seconds_left(self, running: Iterable[tuple[Job, float]] = ()) -> float | None:
        """How long the rest may take at as many at a time as run now; None where nothing like it has ended.

        Args:
            running: jobs with the seconds that they have taken so far.
        """
        spent, total, known = list(running), 0.0, False
        for kind, count in self._waiting.items():
            if count > 0 and (each := self._estimate.seconds(self._examples[kind])) is not None:
                total, known = total + count * each, True
        total -= sum(min(seconds, self._estimate.seconds(job) or 0.0) for job, seconds in spent)
        return max(total, 0.0) / max(1, len(spent)) if known else None


def _but_seed(job: Any) -> tuple[Any, ...]:
    return tuple(getattr(job, name) for name in axes_of(type(job)) if name != "seed")
