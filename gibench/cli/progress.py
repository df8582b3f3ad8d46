"""How a grid gets on, on standard error: a line a finished job, and on a terminal a bar and what is being done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gibench.brief import title
from gibench.job import Job
from gibench.job import Progress as Progressing
from gibench.result import StoredRow
from gibench.sweep.estimate import in_words
from gibench.sweep.tally import Tally
from gibench.text import visible

_MOST_BEFORE = 20  # lines, one below the other, of what was stored before
_SECONDS_BETWEEN = 60  # lines that say how far it all is


class GridProgress:
    """A `gibench.sweep.run.Listener` for people, to be entered while jobs run."""

    def __init__(self, jobs: Sequence[Job], clock: Callable[[], float] = time.monotonic) -> None:
        self._total, self._clock = len(jobs), clock
        self._tally = Tally(jobs)
        self._running: dict[int, tuple[Job, float]] = {}  # since when
        self._before: list[str] = []  # lines of what was stored before, printed at once
        self._more_before = 0  # than have a line, as there may be thousands
        self._begun = self._said = clock()
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        # Drawn seldom, because drawing takes time from the attack that is timed.
        self._bars = Progress(
            *columns, console=self._console, transient=True, refresh_per_second=4, disable=not self._console.is_terminal
        )
        self._jobs = self._bars.add_task("jobs", total=self._total)
        self._stage = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._print_before()
        self._bars.stop()
        if self._total > 1:
            took = in_words(self._clock() - self._begun)
            self._console.print(_shown(f"{self._tally.ended()} of {self._total} cells in {took}"))

    def started(self, number: int, job: Job) -> None:
        """Show the job's name."""
        self._print_before()
        self._running[number] = job, self._clock()
        self._bars.update(self._jobs, description=_shown(f"{self._state()} | {title(job)}"))

    def working(self, message: str, fraction: float | None = None) -> None:
        """Show what the job is doing."""
        self._print_before()
        total, completed = (None, 0.0) if fraction is None else (100, round(100 * fraction))
        self._bars.update(self._stage, description=_shown(message), total=total, completed=completed, visible=True)

    def finished(self, number: int, row: StoredRow, stored_before: bool) -> None:
        """Print the job's outcome, and where no bar shows it, now and then how far it all is."""
        now = self._clock()
        _, since = self._running.pop(number, (None, None))
        self._tally.count(row, None if since is None else now - since, stored_before)
        if stored_before and len(self._before) == _MOST_BEFORE:
            self._more_before += 1
        elif stored_before:
            self._before.append(self._line(number, row, "stored before"))
        else:
            self._print_before()
            self._print([self._line(number, row, _outcome(row))])
        if now - self._said >= _SECONDS_BETWEEN and not self._console.is_terminal:
            self._said = now
            self._print_before()
            self._console.print(_shown(self._state()))

    def _line(self, number: int, row: StoredRow, outcome: str) -> str:
        return visible(f"[{number}/{self._total}] {title(row)}: {outcome}")

    def _print_before(self) -> None:
        if self._before:
            lines, more = self._before, self._more_before
            self._before, self._more_before = [], 0
            self._print([*lines, f"... and {more} more that were stored before"] if more else lines, len(lines) + more)

    def _print(self, lines: list[str], count: int = 1) -> None:
        """What has ended."""
        self._bars.update(self._jobs, advance=count)
        self._bars.update(self._stage, visible=False)
        self._console.out("\n".join(lines), highlight=False)

    def _state(self) -> str:
        """How many are done, running, failed, skipped, and how long the others may take."""
        now = self._clock()
        spent = [(job, now - since) for job, since in self._running.values()]
        left = self._tally.seconds_left(spent)
        running = [f"{len(spent)} running"] if spent else []
        return ", ".join([self._tally.counts(), *running, *([] if left is None else [f"about {in_words(left)} left"])])


def _shown(text: str) -> str:
    """What jobs and attacks say, as rich prints it letter by letter."""
    return escape(visible(text))


@contextmanager
def waiting() -> Iterator[Progressing]:
    """Show on a terminal what is waited for."""
    console = Console(stderr=True, highlight=False)
    with console.status("") as status:

        def show(message: str, fraction: float | None = None) -> None:
            status.update(_shown(message))

        yield show


def _outcome(row: StoredRow) -> str:
    shown = (("psnr_mean", "PSNR {:.1f} dB"), ("exact_rate", "exact {:.2f}"), ("accuracy", "accuracy {:.3f}"))
    values = [(form, getattr(row, name, None)) for name, form in (*shown, ("runtime_s", "{:.2f} s"))]
    return ", ".join([row.status, *(form.format(value) for form, value in values if value is not None)])
