"""Which rows a site shows, and what lies beside each: of what is stored, or of exported files."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from gibench.errors import DataWarning, GibenchError, UsageError
from gibench.leaderboard.published import read
from gibench.leaderboard.utility import joined
from gibench.result import Row
from gibench.stored import Stored
from gibench.submission import archive, content
from gibench.utility.job import TrialRow


class Beside(NamedTuple):
    """What lies beside a row: its picture (PNG), the table of its images (CSV), and what was noted, part by part."""

    picture: bytes | None
    images: bytes | None
    noted: Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """Rows, where they are from in words, and a function from one of them to its files; None where there are none."""

    rows: list[Row]
    source: str
    beside: Callable[[Row], Beside | None] = lambda row: None


def of_store(stored: Stored) -> Shown:
    """Every stored row, with its files.

    Raises:
        UsageError: see `gibench.stored.Stored.rows`.
        StoreError: likewise.
    """
    source = f"the experiment {stored.experiment}"
    rows = joined(stored.rows(Row), stored.rows(TrialRow))
    return Shown(rows, source, lambda row: _beside(stored, row))


def _beside(stored: Stored, row: Row) -> Beside | None:
    """The files of a row, which is shown all the same where they cannot be read."""
    try:
        with TemporaryDirectory() as copies:
            found = stored.details(row, copies)
            return Beside(
                _content(found["grid"]),
                _content(found["images"]),
                {name: found[name] for name in ("diagnostics", "provenance", "seconds") if found[name]},
            )
    except (GibenchError, OSError) as error:
        warnings.warn(f"the page of the run {row.run_id} lacks its files: {error}", DataWarning, stacklevel=2)
        return None


def _content(file: str | None) -> bytes | None:
    return Path(file).read_bytes() if file else None


def of_files(files: Sequence[Path]) -> Shown:
    """The rows of files that `gibench export` or `gibench leaderboard --format csv` wrote, `--costs` included.

    Nothing lies beside them.

    Raises:
        UsageError: a file cannot be read, or holds something else.
    """
    rows: list[Row] = []
    trials: list[TrialRow] = []
    for file in files:
        try:
            if archive.is_one(file):
                _, found = content.read(file)
                rows += found.rows
                trials += found.costs
            elif TrialRow.key_column in _header(file):
                trials += read(TrialRow, file)
            else:
                rows += read(Row, file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            cause = getattr(error, "strerror", None) or error
            raise UsageError(
                f"{file} cannot be read: {cause}: name a file of gibench export or a CSV of rows"
            ) from None
    return Shown(joined(rows, trials), ", ".join(file.name for file in files))


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8", newline="") as stream:
        return next(csv.reader(stream), [])
