"""Reads the rows that tables and figures are made of, utility joined."""

from __future__ import annotations

from pathlib import Path

from gibench.result import Row
from gibench.stored import Stored
from gibench.utility.job import TrialRow

from .utility import joined


def rows(
    tracking_uri: str | None = None,
    experiment: str | None = None,
    results: str | Path | None = None,
    diagnostics: bool = False,
) -> list[Row]:
    """Every stored cell, oldest first, with the utility of its defense where that was measured.

    Args:
        tracking_uri: see `gibench.stored.Stored`.
        experiment: its name; None is `MLFLOW_EXPERIMENT_NAME`, else `gibench`.
        results: see `gibench.stored.Stored`.
        diagnostics: see `gibench.stored.Stored.rows`.

    Raises:
        UsageError: there is no such folder and no such store or experiment, or it cannot be read.
    """
    found = Stored(results, tracking_uri, experiment)
    return joined(found.rows(Row, diagnostics), found.rows(TrialRow))


def trials(
    tracking_uri: str | None = None, experiment: str | None = None, results: str | Path | None = None
) -> list[TrialRow]:
    """Every stored training run, oldest first.

    Raises:
        UsageError: see `rows`.
    """
    return Stored(results, tracking_uri, experiment).rows(TrialRow)
