"""Stores results in MLflow, one run a job under a parent run a grid, and reads them back as rows."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from gibench.errors import UsageError
from gibench.jsonable import jsonable
from gibench.mlflow_store import explained, open_store, shown
from gibench.plugin import format_value
from gibench.result import Column, Place, Result, StoredRow, columns_of
from gibench.spec import parse_chain

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import Run

_PAGE = 1000  # runs fetched at once
_BATCH = 100  # parameters, or tags, that MLflow takes at once
_KEY_LENGTH = 250  # characters
_NOT_A_KEY = re.compile(r"[^\w.-]", re.ASCII)  # MLflow refuses most of them, or reads them as folders
_RUN_ID = re.compile("[0-9a-f]{1,32}")
_OLDEST_FIRST = ["attributes.start_time ASC", "attributes.end_time ASC"]

AnyRow = TypeVar("AnyRow", bound=StoredRow)


class Store(Generic[AnyRow]):
    """The results of one kind in one experiment of an MLflow store."""

    def __init__(
        self, kind: type[AnyRow], uri: str | None = None, experiment: str | None = None, create: bool = True
    ) -> None:
        """Open the store.

        Args:
            kind: of the rows that are written and read; an experiment may hold several.
            uri: see `gibench.mlflow_store.open_store`; None is `MLFLOW_TRACKING_URI`, else `gibench.db` here.
            experiment: the MLflow experiment's name; None is `MLFLOW_EXPERIMENT_NAME`, else `gibench`.
            create: make what does not exist; a reader leaves it out.

        Raises:
            UsageError: the store cannot be had, reached or written.
        """
        self._kind, self._uri = kind, uri
        self._client, self._experiment = open_store(uri, experiment, create)

    def open_grid(self, name: str, settings: Mapping[str, Any]) -> str:
        """Start the parent run of a grid; returns its id."""
        with explained(self._uri):
            run: str = self._client.create_run(self._experiment, run_name=name).info.run_id
            self._log(run, params={key: str(value) for key, value in settings.items() if value is not None})
        return run

    def close_grid(self, run_id: str, status: Literal["FINISHED", "FAILED", "KILLED"] = "FINISHED") -> None:
        """End the parent run of a grid."""
        with explained(self._uri):
            self._client.set_terminated(run_id, status)

    def save(self, result: Result, parent: str | None = None) -> AnyRow:
        """Store one result; returns its row as it is stored.

        The run counts from its very last write on, so that one cut off half-way is no result.
        """
        row = result.row
        started = int((time.time() - sum(result.seconds.values())) * 1000)
        tags = {"mlflow.parentRunId": parent} if parent else {}
        with explained(self._uri):
            run: str = self._client.create_run(self._experiment, started, tags, _title(row)).info.run_id
            self._log(
                run,
                params=_texts(row, "param") | _settings(row),
                metrics=_metrics(result),
                tags={f"provenance.{key}": str(value) for key, value in _leaves(result.provenance)},
            )
            with TemporaryDirectory() as folder:
                _write_artifacts(result, Path(folder))
                self._client.log_artifacts(run, folder)
            self._log(run, tags=_texts(row, "tag"))
            self._client.set_terminated(run, "FINISHED" if row.finished else "FAILED")
        assert isinstance(row, self._kind)
        return replace(row, run_id=run, started=_moment(started))

    def rows(self, diagnostics: bool = False) -> list[AnyRow]:
        """Every stored row, oldest first.

        Args:
            diagnostics: fill `beside` with what was noted in numbers, under MLflow's names for them: a
                `diagnostics.KEY` for each diagnostic, nested ones with dots, and `seconds.STAGE` of the harness.
        """
        found = ((as_row(run, self._kind), run) for run in self._runs())
        return [replace(row, beside=_beside(run)) if diagnostics else row for row, run in found]

    def images(self, run_ids: Iterable[str]) -> pd.DataFrame:
        """The per-image tables of some rows, one below the other: `run_id`, then the columns of `Score.images`.

        Args:
            run_ids: of rows with a score, as every one has that was not skipped; whole ids.

        Raises:
            UsageError: a table is gone, or the store cannot be read.
        """
        import pandas as pd

        tables = []
        with explained(self._uri), TemporaryDirectory() as folder:
            for run in run_ids:
                file = self._client.download_artifacts(run, "images.csv", folder)
                tables.append(pd.read_csv(file).assign(run_id=run))
        joined = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"run_id": []})
        return joined[["run_id", *joined.columns.drop("run_id")]]

    def row(self, run_id: str) -> tuple[AnyRow, dict[str, Any]]:
        """One stored row and what lies beside it.

        Args:
            run_id: a run's id, or the beginning of one.

        Returns:
            The row, and a mapping of `artifacts` (the folder), `grid` and `images` (paths in it, None if it has
            none), `diagnostics`, `provenance`, `seconds`.

        Raises:
            UsageError: no run or more than one begins so, or its artifacts are gone.
        """
        is_id = _RUN_ID.fullmatch(run_id)
        found = [as_row(run, self._kind) for run in self._runs(f"attributes.run_id LIKE '{run_id}%'")] if is_id else []
        if len(found) != 1:
            what = "no stored row" if not found else f"{len(found)} stored rows"
            raise UsageError(
                f"'{run_id}' is the beginning of {what} in {shown(self._uri)}: `gibench leaderboard --format json` "
                "lists each row's run_id"
            )
        with explained(self._uri):
            folder = Path(self._client.download_artifacts(found[0].run_id, ""))
            stored = json.loads((folder / "result.json").read_text())
        paths = {key: folder / name for key, name in (("grid", "images.png"), ("images", "images.csv"))}
        details = {key: str(path) if path.exists() else None for key, path in paths.items()}
        return found[0], {"artifacts": str(folder), **details} | {key: stored[key] for key in stored if key != "row"}

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

    def _log(
        self,
        run: str,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        now = int(time.time() * 1000)
        all_metrics = [Metric(_key(name), value, now, 0) for name, value in (metrics or {}).items()]
        all_params = [Param(_key(name), value) for name, value in (params or {}).items()]
        all_tags = [RunTag(_key(name), value) for name, value in (tags or {}).items()]
        for start in range(0, max(len(all_metrics), len(all_params), len(all_tags)), _BATCH):
            part = slice(start, start + _BATCH)
            self._client.log_batch(run, all_metrics[part], all_params[part], all_tags[part])


def _title(row: Any) -> str:
    specs = [getattr(row, name, row.key_column) for name in ("attack", "defense")]
    names = ["+".join(spec.name for spec in parse_chain(text)) for text in specs]
    return " | ".join([*names, f"seed {row.seed}"])


def _key(name: str) -> str:
    return _NOT_A_KEY.sub("_", name)[:_KEY_LENGTH]


def _texts(row: StoredRow, place: Place) -> dict[str, str]:
    values = {name: getattr(row, name) for name, column in columns_of(type(row)).items() if column.stored_as == place}
    return {name: format_value(value) for name, value in values.items() if value is not None}


def _settings(row: StoredRow) -> dict[str, str]:
    """Each resolved setting as a parameter of its own: `attack.KEY`, ..., and `defense.NAME.KEY`, as those compose."""
    settings: dict[str, str] = {}
    for axis, column in columns_of(type(row)).items():
        if column.axis is None or column.axis.plugin is None:
            continue
        seen: Counter[str] = Counter()
        for spec in parse_chain(getattr(row, axis)):
            seen[spec.name] += 1
            place = f"{spec.name}{seen[spec.name] if seen[spec.name] > 1 else ''}." if axis == "defense" else ""
            settings |= {f"{axis}.{place}{key}": value for key, value in spec.settings}
    return settings


def _metrics(result: Result) -> dict[str, float]:
    """The row's metrics, the stages' seconds and the diagnostics that are numbers, without nulls and infinities."""
    columns = columns_of(type(result.row))
    found = {name: getattr(result.row, name) for name, column in columns.items() if column.stored_as == "metric"}
    found |= {f"seconds.{stage}": seconds for stage, seconds in result.seconds.items()}
    found |= {f"diagnostics.{key}": value for key, value in _leaves(result.diagnostics)}
    numbers = {key: value for key, value in jsonable(found).items() if isinstance(value, int | float)}
    return {key: float(value) for key, value in numbers.items()}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The single values of nested mappings, with dotted keys."""
    for key, value in jsonable(values).items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif value is not None and not isinstance(value, list):
            yield prefix + key, value


def _write_artifacts(result: Result, folder: Path) -> None:
    if result.images is not None:
        result.images.to_csv(folder / "images.csv", index=False)
    if result.grid_png is not None:
        (folder / "images.png").write_bytes(result.grid_png)
    beside = {name: getattr(result, name) for name in ("diagnostics", "provenance", "seconds")}
    document = jsonable({"row": result.row.as_dict(), **beside})
    (folder / "result.json").write_text(json.dumps(document, indent=2, allow_nan=False))


def as_row(run: Run, kind: type[AnyRow]) -> AnyRow:
    """What an MLflow run says, as a row; of one stored before there was an axis or by another name, what it meant."""
    places = {"param": run.data.params, "metric": run.data.metrics, "tag": run.data.tags}
    values: dict[str, Any] = {}
    for name, column in columns_of(kind).items():
        stored = places[column.stored_as]
        formerly = column.axis.formerly if column.axis else None
        values[name] = _value(stored.get(name, stored.get(formerly) if formerly else None), column)
        if values[name] is None and column.axis:
            values[name] = column.axis.before
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
