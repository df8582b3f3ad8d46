"""Rows of files: what `gibench export` or `gibench leaderboard --format csv` wrote, beside stored rows or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gibench.result import Row
from gibench.submission import archive, content

from .published import read
from .utility import joined


def rows(files: Sequence[Path], stored: Sequence[Row] | None = None) -> list[Row]:
    """The rows of files, oldest first; where there is more than one place that they are from, each says which.

    Args:
        files: submissions, or tables of rows as CSV.
        stored: rows to stand beside them; None: the files' stand alone.

    Raises:
        UsageError: a file is none of these.
    """
    several = stored is not None or len(files) > 1
    found = [replace(row, source=str(file) if several else None) for file in files for row in _read(file)]
    found += [replace(row, source="stored") for row in stored or ()]
    return sorted(found, key=lambda row: (row.started, row.run_id))


def _read(file: Path) -> list[Row]:
    if not archive.is_one(file):
        return read(Row, file)
    _, found = content.read(file)
    return joined(found.rows, found.costs)
