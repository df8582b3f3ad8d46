"""The kinds of rows that there are."""

from __future__ import annotations

from gibench.result import Row, StoredRow
from gibench.results.folder import Results


def all_rows(results: Results) -> list[StoredRow]:
    """Every row of every kind, oldest first."""
    from gibench.utility.job import TrialRow

    kinds: tuple[type[StoredRow], ...] = (Row, TrialRow)
    return sorted((row for kind in kinds for row in results.rows(kind)), key=lambda row: (row.started, row.run_id))
