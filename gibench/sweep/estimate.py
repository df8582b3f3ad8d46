"""How long jobs will take, from finished ones that are like them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gibench.axes import axes_of
from gibench.result import StoredRow

# What a finished job has to share with one that is estimated, the more the better: all but the seed, or at least these.
_LIKE = (("attack", "model", "batch_size"), ("attack",))


class Estimate:
    """Mean seconds of finished jobs, by what they have in common."""

    def __init__(self, rows: Iterable[StoredRow] = ()) -> None:
        self._sums: dict[tuple[Any, ...], tuple[float, int]] = {}
        for row in rows:
            if seconds := seconds_of(row):
                self.add(row, seconds)

    def add(self, done: Any, seconds: float) -> None:
        """Count a job, or its row, that took so long."""
        for kind in _kinds(done):
            total, count = self._sums.get(kind, (0.0, 0))
            self._sums[kind] = total + seconds, count + 1

    def seconds(self, job: Any) -> float | None:
        """How long a job takes; None where none of its attack has been seen."""
        for kind in _kinds(job) if self._sums else ():
            if kind in self._sums:
                total, count = self._sums[kind]
                return total / count
        return None

    def left(self, jobs: Iterable[Any]) -> tuple[float, int]:
        """Seconds of all jobs, and of how many of them that is not known."""
        each = [self.seconds(job) for job in jobs]
        return sum(seconds for seconds in each if seconds is not None), each.count(None)


def seconds_of(row: Any) -> float | None:
    """What a stored row took: its stages, where they were read with it, else what was measured of it."""
    stages: float = sum(value for name, value in row.beside.items() if name.startswith("seconds."))
    if stages:
        return stages
    if getattr(row, "round_s", None) is not None:
        return float(row.round_s * row.rounds)
    runtime: float | None = getattr(row, "runtime_s", None)
    return runtime


def _kinds(job: Any) -> Iterator[tuple[Any, ...]]:
    names = axes_of(type(job))
    yield tuple(getattr(job, name) for name in names if name != "seed")
    for like in _LIKE:
        yield like, *(getattr(job, name) for name in like if name in names)


def in_words(seconds: float) -> str:
    """A duration as people say it: `40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
