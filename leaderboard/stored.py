"""Reads the rows that tables and figures are made of from a tracking store, utility joined."""

from __future__ import annotations

from gibench.result import Row
from gibench.tracking import Store
from gibench.utility.job import TrialRow

from .utility import joined


def rows(tracking_uri: str | None = None, experiment: str | None = None, diagnostics: bool = False) -> list[Row]:
    """Every stored cell, oldest first, with the utility of its defense where that was measured.

    Args:
        tracking_uri: see `gibench.tracking.Store`.
        experiment: the MLflow experiment's name; None is `MLFLOW_EXPERIMENT_NAME`, else `gibench`.
        diagnostics: see `gibench.tracking.Store.rows`.

    Raises:
        UsageError: there is no such store or experiment, or it cannot be read.
    """
    store = Store(Row, tracking_uri, experiment, create=False)
    return joined(store.rows(diagnostics), trials(tracking_uri, experiment))


def trials(tracking_uri: str | None = None, experiment: str | None = None) -> list[TrialRow]:
    """Every stored training run, oldest first.

    Raises:
        UsageError: see `rows`.
    """
    return Store(TrialRow, tracking_uri, experiment, create=False).rows()
