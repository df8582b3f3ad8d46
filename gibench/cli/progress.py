"""How a grid gets on, on standard error: a line a finished job, and on a terminal a bar and what is being done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gibench.cli.table import title
from gibench.job import Job
from gibench.job import Progress as Progressing
from gibench.result import StoredRow


class GridProgress:
    """A `gibench.sweep.run.Listener` for people, to be entered while jobs run."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        # Drawn seldom, because drawing takes time from the attack that is timed.
        self._bars = Progress(
            *columns, console=self._console, transient=True, refresh_per_second=4, disable=not self._console.is_terminal
        )
        self._jobs = self._bars.add_task("jobs", total=total)
        self._stage = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def started(self, number: int, job: Job) -> None:
        """Show the job's name."""
        self._bars.update(self._jobs, description=escape(title(job)))

    def working(self, message: str, fraction: float | None = None) -> None:
        """Show what the job is doing."""
        total, completed = (None, 0.0) if fraction is None else (100, round(100 * fraction))
        self._bars.update(self._stage, description=escape(message), total=total, completed=completed, visible=True)

    def finished(self, number: int, row: StoredRow, stored_before: bool) -> None:
        """Print the job's outcome."""
        outcome = "stored before" if stored_before else _outcome(row)
        self._bars.update(self._jobs, advance=1)
        self._bars.update(self._stage, visible=False)
        self._console.out(f"[{number}/{self._total}] {title(row)}: {outcome}", highlight=False)


@contextmanager
def waiting() -> Iterator[Progressing]:
    """Show on a terminal what is waited for."""
    console = Console(stderr=True, highlight=False)
    with console.status("") as status:

        def show(message: str, fraction: float | None = None) -> None:
            status.update(escape(message))

        yield show


def _outcome(row: StoredRow) -> str:
    shown = (("psnr_mean", "PSNR {:.1f} dB"), ("exact_rate", "exact {:.2f}"), ("accuracy", "accuracy {:.3f}"))
    values = [(form, getattr(row, name, None)) for name, form in (*shown, ("runtime_s", "{:.2f} s"))]
    return ", ".join([row.status, *(form.format(value) for form, value in values if value is not None)])
