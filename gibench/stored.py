"""Reads every stored row: the results folder's, and those of the MLflow store that the folder has not."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from gibench.address import is_missing
from gibench.errors import DataWarning, StoreError, UsageError
from gibench.mlflow_store import check_address, file_of
from gibench.recording import FROM
from gibench.result import StoredRow
from gibench.results import Results
from gibench.results.place import identity
from gibench.sqlite_store import has_others

if TYPE_CHECKING:
    import pandas as pd

    from gibench.tracking import Store

AnyRow = TypeVar("AnyRow", bound=StoredRow)


class Stored:
    """What is stored of one experiment. Where the folder has rows, a store that cannot be read costs a warning."""

    def __init__(
        self, results: str | Path | None = None, tracking_uri: str | None = None, experiment: str | None = None
    ) -> None:
        """Say where to read.

        Args:
            results: the folder; see `gibench.results.place.root`.
            tracking_uri: the MLflow store; see `gibench.address.address`.
            experiment: its name; None is `MLFLOW_EXPERIMENT_NAME`, else `gibench`.

        Raises:
            UsageError: no store has such an address, or the folder that is named is none.
        """
        check_address(tracking_uri)
        self._results = Results(results, experiment)
        where = self._results.root
        named_alone = results and tracking_uri is None  # rows of the working folder's store are not those asked for
        if not where.is_dir() and (where.exists() or named_alone):
            raise UsageError(f"there is no results folder {where}: see --results")
        self._uri, self._experiment = tracking_uri, experiment
        self.experiment = self._results.experiment  # its name

    def rows(self, kind: type[AnyRow], diagnostics: bool = False) -> list[AnyRow]:
        """Every row of a kind, oldest first.

        Args:
            kind: of row; an experiment may hold several.
            diagnostics: fill `beside` with what was noted in numbers.

        Raises:
            UsageError: there is no folder with such an experiment, and no such store.
            StoreError: there is no such folder, and the store failed.
        """
        here = self._results.rows(kind, diagnostics)
        present = {row.key for row in here}
        try:
            others = self._others(kind, diagnostics, bool(here)) if self._has_others(kind) else []
        except (StoreError, UsageError) as error:
            if not self._results.folder.is_dir():
                raise
            warnings.warn(str(error), DataWarning, stacklevel=2)
            others = []
        found = [*here, *(row for row in others if row.key not in present)]
        return sorted(found, key=lambda row: (row.started, row.run_id))

    def _has_others(self, kind: type[StoredRow]) -> bool:
        """Whether there may be rows in the store that are not from the folder, if there is one."""
        file = file_of(self._uri)
        if file is None or not self._results.folder.is_dir():
            return True
        return has_others(file, kind.key_column, FROM, identity(self._results.root))

    def _others(self, kind: type[AnyRow], diagnostics: bool, apart: bool) -> list[AnyRow]:
        store = self._store(kind)
        return store.rows(diagnostics, identity(self._results.root) if apart else None) if store else []

    def row(self, kind: type[AnyRow], text: str) -> tuple[AnyRow, dict[str, Any]]:
        """One row and what lies beside it, see `gibench.results.Results.details`.

        Args:
            kind: of row.
            text: a `run_id`, the row's or MLflow's, or a cell's key, or how one of them begins.

        Raises:
            UsageError: no row or more than one begins so, or its files are gone.
            StoreError: the folder has no such row, and the store failed.
        """
        here = self._results.beginning(kind, text)
        if len(here) == 1:
            return here[0], self._results.details(here[0].key)
        where = self._results.root
        if here:
            raise UsageError(f"'{text}' is the beginning of {len(here)} stored rows in {where}: write more of it")
        store = self._store(kind)
        if store is None:
            raise UsageError(
                f"'{text}' is the beginning of no stored row in {where}: `gibench leaderboard --format json` lists "
                "each row's run_id"
            )
        return store.row(text)

    def details(self, row: StoredRow, copies: str | None = None) -> dict[str, Any]:
        """What lies beside a row, see `gibench.results.Results.details`.

        Args:
            row: one that `rows` gave.
            copies: the folder for copies of files that are not on this machine; MLflow's own choice without it.

        Raises:
            UsageError: its files are gone or damaged.
            StoreError: they are in the store alone, which failed.
        """
        if self._results.has(row):
            return self._results.details(row.key)
        store = self._store(type(row))
        if store is None:
            raise UsageError(f"the files of the run {row.run_id} are gone: run its cell again with --force")
        return store.row(row.run_id, copies)[1]

    def images(self, rows: Iterable[StoredRow]) -> pd.DataFrame:
        """The per-image tables of some rows, see `gibench.results.Results.images`.

        Raises:
            UsageError: a table is gone or damaged.
            StoreError: it is in the store alone, which failed.
        """
        import pandas as pd

        wanted = list(rows)
        here = [row for row in wanted if self._results.has(row)]
        known = {row.run_id for row in here}
        elsewhere = [row for row in wanted if row.run_id not in known]
        found = self._results.images(here)
        if elsewhere and (store := self._store(type(elsewhere[0]))):
            found = pd.concat([found, store.images(row.run_id for row in elsewhere)], ignore_index=True)
        return found

    def _store(self, kind: type[AnyRow]) -> Store[AnyRow] | None:
        """The store; None where none was asked for, there is none in the working folder, and there is a folder."""
        from gibench.tracking import Store

        if self._results.folder.is_dir() and is_missing(self._uri):
            return None
        return Store(kind, self._uri, self._experiment)
