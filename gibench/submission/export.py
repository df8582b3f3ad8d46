"""Makes a submission of what is stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gibench import provenance
from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.job import key_of
from gibench.leaderboard.table import newest
from gibench.leaderboard.utility import newest as newest_trials
from gibench.result import Row, StoredRow
from gibench.stored import Stored
from gibench.submission.content import Code, Submission
from gibench.sweep.suite import Suite
from gibench.utility.job import TrialRow

HERE = {"device": ["cpu"], "threads": [1]}  # axes of the machine, which are no part of what a suite asks for


@dataclass(frozen=True)
class Exported:
    """A submission, and how much of its suite it is."""

    submission: Submission
    wanted: int | None  # cells of the suite
    missing: int  # cells of it that are not stored


def export(stored: Stored, suite: Path | None = None) -> Exported:
    """What is stored of an experiment, of several rows for one cell the newest.

    Args:
        stored: where.
        suite: its file; only its cells are taken.

    Raises:
        UsageError: there is nothing to export, or the suite or what is stored cannot be read.
        StoreError: see `gibench.stored.Stored.rows`.
    """
    rows, costs = newest(stored.rows(Row)), newest_trials(stored.rows(TrialRow))
    content, name, wanted = None, None, None
    if suite is not None:
        wanted = {place_of(cell) for cell in Suite.read(suite, HERE).cells()}
        content, name = suite.read_bytes(), suite.stem
        rows = [row for row in rows if place_of(row) in wanted]
    met = {(row.defense, row.model, row.batch_size) for row in rows}
    costs = [run for run in costs if (run.defense, run.model, run.batch_size) in met]
    if not rows:
        what = f"none of the suite {name}'s cells" if suite else "no cell"
        raise UsageError(f"{what} is stored: run it first, or see --results and --experiment")
    images, codes = {}, {}
    for row in rows:
        details = stored.details(row)
        if row.psnr_mean is not None:
            images[row.cell] = _images(details["images"], row)
        if code := _code(details["provenance"] or {}, row):
            codes[row.cell] = code
    missing = 0 if wanted is None else len(wanted - set(map(place_of, rows)))
    submission = Submission(rows, images, codes, costs, content, name)
    return Exported(submission, None if wanted is None else len(wanted), missing)


def place_of(job: Cell | Row) -> tuple[object, ...]:
    """The axes of a cell but those of the machine."""
    return tuple(getattr(job, name) for name, axis in axes_of(Cell).items() if not axis.of_machine)


def _images(file: str | None, row: StoredRow) -> str:
    try:
        if file is None:
            raise FileNotFoundError(2, "it is gone")
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UsageError(
            f"the per-image table of the cell {row.key} cannot be read ({cause}): run it with --force"
        ) from None


def _code(noted: dict[str, dict[str, str]], row: Row) -> Code | None:
    """What the key of a cell was made of beside its axes, where that was noted: cells of a killed process have none."""
    versions, sources = provenance.distributions(noted.get("versions") or {}), noted.get("sources") or {}
    axes = axes_named(row)
    return Code(versions=versions, sources=sources) if key_of(axes, versions, sources) == row.cell else None


def axes_named(row: Row) -> dict[str, object]:
    """The axes of a row's cell by name."""
    return {name: getattr(row, name) for name in axes_of(Cell)}
