"""From stored rows to tables. The package is callable: `gibench.leaderboard()` is the table of all stored rows."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def leaderboard(
    tracking_uri: str | None = None, experiment: str | None = None, results: str | Path | None = None
) -> pd.DataFrame:
    """The stored rows as a table: the columns of `gibench.result.COLUMNS`, then `run_id` and `started` (UTC).

    `utility_accuracy` is joined from the stored training runs, see `gibench.leaderboard.utility.joined`.

    Nothing is run. See `gibench.leaderboard.table.summarize` for the means over seeds.

    Args:
        tracking_uri: `sqlite:///FILE` or the address of an MLflow server; None is `gibench.db` in the working folder.
            Read for rows that are not in the folder of results.
        experiment: its name; None is `MLFLOW_EXPERIMENT_NAME`, else `gibench`.
        results: the folder of results; None is `GIBENCH_RESULTS`, else `gibench-results` in the working folder.

    Raises:
        UsageError: there is no such folder and no such store or experiment, or it cannot be read.
    """
    from .stored import rows
    from .table import table

    return table(rows(tracking_uri, experiment, results))


class _CallablePackage(ModuleType):
    """Python makes a submodule an attribute of its package, so the name `gibench.leaderboard` must serve as both."""

    def __call__(
        self, tracking_uri: str | None = None, experiment: str | None = None, results: str | Path | None = None
    ) -> pd.DataFrame:
        return leaderboard(tracking_uri, experiment, results)


sys.modules[__name__].__class__ = _CallablePackage
