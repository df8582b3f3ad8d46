"""Reads the rows of an MLflow store: those of the results folder that were delivered, and what others have written."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from gibench.address import shown
from gibench.errors import DataWarning, StoreError, UsageError
from gibench.mlflow_store import explained, open_store
from gibench.recording import FROM, RUN
from gibench.result import Column, StoredRow
from gibench.results.document import GRID, IMAGES, RESULT, filled
from gibench.sqlite_store import here_now

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

_PAGE = 1000  # runs fetched at once
_RUN_ID = re.compile("[0-9a-f]{1,32}")
_OLDEST_FIRST = ["attributes.start_time ASC", "attributes.end_time ASC"]

AnyRow = TypeVar("AnyRow", bound=StoredRow)


class Store(Generic[AnyRow]):
    """The rows of one kind in one experiment of an MLflow store. Their `run_id` is MLflow's own."""

    def __init__(self, kind: type[AnyRow], uri: str | None = None, experiment: str | None = None) -> None:
        """Open the store; nothing is made.

        Args:
            kind: of the rows that are read; an experiment may hold several.
            uri: see `gibench.address.address`; None is `MLFLOW_TRACKING_URI`, else `gibench.db` here.
            experiment: the MLflow experiment's name; None is `MLFLOW_EXPERIMENT_NAME`, else `gibench`.

        Raises:
            UsageError: there is no such store or experiment, or it cannot be reached.
        """
        self._kind, self._uri = kind, uri
        self._client, self._experiment, self._file = open_store(uri, experiment, create=False)

    def rows(self, diagnostics: bool = False, apart_from: str | None = None) -> list[AnyRow]:
        """Every stored row, oldest first; one that is damaged is left out with a warning that names it.

        Args:
            diagnostics: fill `beside` with what was noted in numbers, under MLflow's names for them: a
                `diagnostics.KEY` for each diagnostic, nested ones with dots, and `seconds.STAGE` of the harness.
            apart_from: the name of a results folder whose own rows are left out, see `gibench.results.place.identity`.

        Raises:
            StoreError: the store failed.
        """
        runs = self._runs() if apart_from is None else self._of_others(apart_from)
        found = []
        for run in runs:
            try:
                row = as_row(run, self._kind)
            except (ValueError, OverflowError) as error:
                line = f"the run {run.info.run_id} in {shown(self._uri)} is damaged and left out ({error})"
                warnings.warn(line, DataWarning, stacklevel=2)
                continue
            found.append(replace(row, beside=_beside(run)) if diagnostics else row)
        return found

    def _of_others(self, results: str) -> list[Run]:
        others = (f"tags.`{FROM}` != '{results}'", f"tags.`{FROM}` IS NULL")
        try:
            runs = [run for each in others for run in self._runs(each)]
        except StoreError:  # a server that is older knows no IS NULL
            return list(self._runs())
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.end_time))

    def images(self, run_ids: Iterable[str]) -> pd.DataFrame:
        """The per-image tables of some rows, one below the other: `run_id`, then the columns of `Score.images`.

        Args:
            run_ids: of rows with a score, as every one has that was not skipped; whole ids.

        Raises:
            StoreError: a table is gone, or the store cannot be read.
        """
        import pandas as pd

        tables = []
        with explained(self._uri), TemporaryDirectory() as folder:
            for run in run_ids:
                tables.append(pd.read_csv(self._artifacts(run, IMAGES, folder)).assign(run_id=run))
        joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"run_id": []})
        return joined[["run_id", *joined.columns.drop("run_id")]]

    def row(self, run_id: str, copies: str | None = None) -> tuple[AnyRow, dict[str, Any]]:
        """One stored row and what lies beside it.

        Args:
            run_id: MLflow's id of a run, or that of its row, or the beginning of one.
            copies: the folder for copies of files that are not on this machine; MLflow's own choice without it.

        Returns:
            The row, and a mapping of `artifacts` (the folder), `grid` and `images` (paths in it, None if it has
            none), `diagnostics`, `provenance`, `seconds`.

        Raises:
            UsageError: no run or more than one begins so.
            StoreError: the store failed, or the artifacts are gone.
        """
        is_id = _RUN_ID.fullmatch(run_id)
        # A row that was run again with --force is here alone, and people have read its own id.
        places = ("attributes.run_id", f"tags.`{RUN}`") if is_id else ()
        runs = {run.info.run_id: run for place in places for run in self._runs(f"{place} LIKE '{run_id}%'")}
        found = [as_row(run, self._kind) for run in runs.values()]
        if len(found) != 1:
            what = "no stored row" if not found else f"{len(found)} stored rows"
            raise UsageError(
                f"'{run_id}' is the beginning of {what} in {shown(self._uri)}: `gibench leaderboard --format json` "
                "lists each row's run_id"
            )
        with explained(self._uri):
            folder = self._artifacts(found[0].run_id, folder=copies)
            stored = json.loads((folder / RESULT).read_text())
        paths = {"grid": folder / GRID, "images": folder / IMAGES}
        details = {key: str(path) if path.exists() else None for key, path in paths.items()}
        return found[0], {"artifacts": str(folder), **details} | {
            key: stored[key] for key in ("diagnostics", "provenance", "seconds")
        }

    def _artifacts(self, run: str, name: str = "", folder: str | None = None) -> Path:
        """A copy here of a run's artifacts, or of one; the files themselves if they are here."""
        moved = here_now(self._file, self._client.get_run(run).info.artifact_uri)
        return moved / name if moved else Path(self._client.download_artifacts(run, name, folder))

    def _runs(self, *conditions: str) -> Iterator[Run]:
        # Grids have no key, and a run that was cut off stays RUNNING.
        ours = f"tags.{self._kind.key_column} != '' and attributes.status != 'RUNNING'"
        token, wanted = None, " and ".join((ours, *conditions))
        with explained(self._uri):
            while True:
                page = self._client.search_runs(
                    [self._experiment], wanted, max_results=_PAGE, order_by=_OLDEST_FIRST, page_token=token
                )
                yield from page
                if not (token := page.token):
                    return


def as_row(run: Run, kind: type[AnyRow]) -> AnyRow:
    """What an MLflow run says, as a row; of one stored before there was an axis or by another name, what it meant.

    Raises:
        ValueError: a value is none of its column.
    """
    places = {"param": run.data.params, "metric": run.data.metrics, "tag": run.data.tags}
    values = filled(kind, lambda name, column: _value(places[column.stored_as].get(name), column))
    return kind(**values, run_id=run.info.run_id, started=_moment(run.info.start_time))


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")


def _beside(run: Run) -> dict[str, float]:
    found: Mapping[str, float] = run.data.metrics
    return {name: found[name] for name in sorted(found) if name.startswith(("diagnostics.", "seconds."))}


def _value(stored: Any, column: Column) -> Any:
    if stored is None:
        return None
    return stored == "true" if column.type is bool else column.type(stored)
