"""Which rows a site shows, and what lies beside each: of what is stored, or of exported files."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gibench.errors import DataWarning, GibenchError, UsageError
from gibench.leaderboard.published import read
from gibench.leaderboard.utility import joined
from gibench.result import Row
from gibench.stored import Stored
from gibench.utility.job import TrialRow


@dataclass(frozen=True)
class Shown:
    """Rows, where they are from in words, and a function that gives what lies beside one of them.

    That is what `gibench.stored.Stored.details` gives; nothing where only the rows are known.
    """

    rows: list[Row]
    source: str
    beside: Callable[[Row], Mapping[str, Any]] = lambda row: {}


def of_store(stored: Stored) -> Shown:
    """Every stored row, with its files.

    Raises:
        UsageError: see `gibench.stored.Stored.rows`.
        StoreError: likewise.
    """

    def beside(row: Row) -> Mapping[str, Any]:
        try:
            return stored.details(row)
        except GibenchError as error:  # its row is shown all the same
            warnings.warn(str(error), DataWarning, stacklevel=2)
            return {}

    source = f"the experiment {stored.experiment}"
    return Shown(joined(stored.rows(Row), stored.rows(TrialRow)), source, beside)


def of_files(files: Sequence[Path]) -> Shown:
    """The rows of files that `gibench leaderboard --format csv` wrote, `--costs` included; nothing lies beside them.

    Raises:
        UsageError: a file cannot be read, or holds something else.
    """
    rows: list[Row] = []
    trials: list[TrialRow] = []
    for file in files:
        try:
            if TrialRow.key_column in _header(file):
                trials += read(TrialRow, file)
            else:
                rows += read(Row, file)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            cause = getattr(error, "strerror", None) or error
            raise UsageError(
                f"{file} cannot be read: {cause}: name a file that gibench leaderboard --format csv wrote"
            ) from None
    return Shown(joined(rows, trials), ", ".join(file.name for file in files))


def _header(file: Path) -> list[str]:
    with file.open(encoding="utf-8", newline="") as stream:
        return next(csv.reader(stream), [])
