"""Writes finished cells into MLflow: one run a cell under a parent run a grid, each recognised when it is met again."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gibench.axes import axes_of
from gibench.mlflow_store import ONCE, environment, explained, open_store
from gibench.plugin import format_value
from gibench.registry import readable
from gibench.result import Place, StoredRow, columns_of
from gibench.results.document import RESULT, beside, leaves, parsed
from gibench.results.grids import Ended
from gibench.spec import parse_chain
from gibench.text import prose, shortened, visible

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput, Run

RUN = "gibench.run_id"  # tags: which row it is of
FROM = "gibench.results"  # which results folder has it
_GRID = "gibench.grid"  # which grid a parent run is
NAME = "gibench.name"  # an experiment's, that this store has given to it and no other
_BATCH = 100  # parameters, or tags, that MLflow takes at once
_KEY_LENGTH = 250  # characters
_LONGEST_NAME = 250  # characters
_NOT_A_KEY = re.compile(r"[^\w.-]", re.ASCII)  # MLflow refuses most of them, or reads them as folders


class Recorder:
    """Writes into one experiment of a store what one results folder holds."""

    def __init__(self, uri: str | None, experiment: str | None, folder: str) -> None:
        """Open the store, which is made where there is none.

        Args:
            uri: see `gibench.address.address`.
            experiment: its name.
            folder: what the results folder is called, see `gibench.results.place.identity`.

        Raises:
            UsageError: the store cannot be had, reached or written.
        """
        self._uri, self._folder = uri, folder
        self._client, self._experiment, _ = open_store(uri, experiment, create=True)

    def name(self, proposal: str) -> str:
        """What this experiment of this store is called for good, wherever it is moved to; the proposal if it had none.

        Raises:
            StoreError: the store failed.
        """
        with explained(self._uri):
            tags = self._client.get_experiment(self._experiment).tags
            if NAME not in tags:
                _once_more(self._client.set_experiment_tag, self._experiment, NAME, proposal)
                tags = self._client.get_experiment(self._experiment).tags
        return str(tags[NAME])

    def grid(self, grid: str, name: str, settings: Mapping[str, str]) -> str:
        """The parent run of a grid, which is begun where there is none; returns its id.

        Raises:
            StoreError: the store failed.
        """
        with explained(self._uri):
            if found := self._find(_GRID, grid):
                return str(found.info.run_id)
            tags = {_GRID: grid, FROM: self._folder}
            run = self._create(tags=tags, run_name=name)
            self._log(run, 0, params=settings)
        return run

    def close_grid(self, grid: str, ended: Ended) -> None:
        """End the parent run of a grid, if there is one.

        Raises:
            StoreError: the store failed.
        """
        with explained(self._uri):
            found = self._find(_GRID, grid)
            if found and found.info.status == "RUNNING":
                self._client.set_terminated(found.info.run_id, ended)

    def record(self, row: StoredRow, folder: Path, parent: str | None = None) -> str:
        """Write one cell's run, or what is missing of it; returns MLflow's id of it.

        It counts from its very last write on, and one that was cut off is gone on with: the same writes change nothing.

        Args:
            row: of the cell.
            folder: its files, which become the run's artifacts.
            parent: the run of its grid.

        Raises:
            StoreError: the store failed.
            OSError, DamagedError: the files are gone or damaged.
        """
        details = parsed((folder / RESULT).read_bytes())
        started = round(datetime.fromisoformat(row.started).timestamp() * 1000)
        with explained(self._uri):
            found = self._find(RUN, row.run_id)
            if found and found.info.status != "RUNNING":
                return str(found.info.run_id)
            tags = {RUN: row.run_id, FROM: self._folder} | ({"mlflow.parentRunId": parent} if parent else {})
            tags["mlflow.note.content"] = _description(row)
            tags |= {_key(name): value for name, value in (_texts(row, "tag") | _provenance(details)).items()}
            first = dict(list(tags.items())[:_BATCH])
            run = str(found.info.run_id) if found else self._create(started, first, _title(row))
            self._log(
                run,
                started,
                params=_texts(row, "param") | _settings(row),
                metrics=_metrics(row) | beside(details),
                tags={name: tags[name] for name in list(tags)[0 if found else _BATCH :]},
            )
            _once_more(self._client.log_inputs, run, [_dataset(row, details)])
            self._client.log_artifacts(run, str(folder))
            ended = started + round(1000 * sum(details["seconds"].values()))
            self._client.set_terminated(run, "FINISHED" if row.finished else "FAILED", ended)
        return run

    def cut_off(self) -> dict[str, str]:
        """The runs from this results folder that were begun and not ended: MLflow's id by that of the row.

        Raises:
            StoreError: the store failed.
        """
        wanted = f"tags.`{FROM}` = '{self._folder}' and attributes.status = 'RUNNING' and tags.`{RUN}` != ''"
        with explained(self._uri):
            return {run.data.tags[RUN]: run.info.run_id for run in self._client.search_runs([self._experiment], wanted)}

    def give_up(self, run: str) -> None:
        """End a run that nothing is left to be written of.

        Raises:
            StoreError: the store failed.
        """
        with explained(self._uri):
            self._client.set_terminated(run, "KILLED")

    def _create(self, *arguments: Any, **settings: Any) -> str:
        """Begin a run; unlike other requests it is never sent twice, since the first may have come through."""
        with environment(ONCE):
            return str(self._client.create_run(self._experiment, *arguments, **settings).info.run_id)

    def _find(self, tag: str, value: str) -> Run | None:
        found = self._client.search_runs([self._experiment], f"tags.`{tag}` = '{value}'", max_results=1)
        return found[0] if found else None

    def _log(
        self,
        run: str,
        moment: int,
        params: Mapping[str, str] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        all_metrics = [Metric(_key(name), value, moment, 0) for name, value in (metrics or {}).items()]
        all_params = [Param(_key(name), value) for name, value in (params or {}).items()]
        all_tags = [RunTag(_key(name), value) for name, value in (tags or {}).items()]
        for start in range(0, max(len(all_metrics), len(all_params), len(all_tags)), _BATCH):
            part = slice(start, start + _BATCH)
            self._client.log_batch(run, all_metrics[part], all_params[part], all_tags[part])


def _once_more(write: Callable[..., None], *arguments: Any) -> None:
    """Write what all runs of an experiment share: MLflow looks, then writes, and another process may be in between."""
    from mlflow.exceptions import MlflowException

    try:
        write(*arguments)
    except MlflowException:
        write(*arguments)  # finds what is there by now; what had another cause fails again


def _title(row: Any) -> str:
    """What a list of runs tells one by: the plugins with the settings that are not their defaults."""
    named = [(name, axis) for name, axis in reversed(axes_of(type(row)).items()) if axis.plugin]
    specs = [readable(axis.plugin, getattr(row, name)) for name, axis in named if axis.plugin]
    text = " | ".join([*specs, f"batch {row.batch_size}", f"seed {row.seed}"])
    return shortened(visible(text), _LONGEST_NAME)


def _description(row: Any) -> str:
    """How it ended, in a line of Markdown."""
    scores = (("psnr_mean", "PSNR {:.1f} dB"), ("exact_rate", "exact {:.2f}"), ("accuracy", "accuracy {:.3f}"))
    values = [(form, getattr(row, name, None)) for name, form in scores]
    ended = ", ".join([row.status, *(form.format(value) for form, value in values if value is not None)])
    return ended + (f": {prose(row.reason)}" if row.reason else "")


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


def _metrics(row: StoredRow) -> dict[str, float]:
    columns = columns_of(type(row))
    found = {name: getattr(row, name) for name, column in columns.items() if column.stored_as == "metric"}
    return {name: float(value) for name, value in found.items() if value is not None}


def _provenance(details: Mapping[str, Any]) -> dict[str, str]:
    return {f"provenance.{key}": str(value) for key, value in leaves(details["provenance"])}


def _dataset(row: Any, details: Mapping[str, Any]) -> DatasetInput:
    """The images that the cell is of, as this version of gibench has them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    version = (details["provenance"].get("versions") or {}).get("gibench")
    identity = hashlib.sha256(f"{row.dataset} {version}".encode()).hexdigest()[:8]
    name = next(iter(parse_chain(row.dataset))).name
    context = getattr(row, "split", "training")
    return DatasetInput(Dataset(name, identity, "gibench", row.dataset), [InputTag("mlflow.data.context", context)])
