"""Stores training runs in MLflow beside the cells, and reads them back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gibench.mlflow_store import explained
from gibench.plugin import format_value
from gibench.result import Column, Row
from gibench.spec import parse_chain
from gibench.tracking import Store, as_row

_PARAM, _COUNT_PARAM, _TAG, _METRIC = (
    Column("param", str),
    Column("param", int),
    Column("tag", str),
    Column("metric", float),
)

COLUMNS: Mapping[str, Column] = {
    "utility": _TAG,  # the key
    "defense": _PARAM,
    "dataset": _PARAM,
    "model": _PARAM,
    "batch_size": _COUNT_PARAM,
    "rounds": _COUNT_PARAM,
    "seed": _COUNT_PARAM,
    "device": _PARAM,
    "hardware": _TAG,
    "status": _TAG,  # ok, skipped or diverged
    "reason": _TAG,
    "accuracy": _METRIC,  # on the test images, after the last round
    "loss": _METRIC,
    "round_s": _METRIC,  # median seconds of the clients' computation in a round
    "round_bytes": _METRIC,  # of the update, see `gibench.utility.size`
    "epsilon": _METRIC,  # of one round's release
    "delta": _METRIC,
}


class UtilityStore(Store):
    """The training runs of one experiment; its cells are not among them."""

    found_by = "tags.utility != '' and attributes.status != 'RUNNING'"

    def save_trial(self, found: Mapping[str, Any]) -> str:
        """Store what `gibench.utility.trial.run_trial` gave; returns the run's id."""
        texts: dict[str, dict[str, str]] = {"param": {}, "tag": {}}
        metrics = {}
        for name, column in COLUMNS.items():
            if (value := found.get(name)) is None:
                continue
            if column.stored_as == "metric":
                metrics[name] = float(value)
            else:
                texts[column.stored_as][name] = format_value(value)
        title = f"utility | {'+'.join(spec.name for spec in parse_chain(found['defense']))} | seed {found['seed']}"
        costs = {f"costs.{key}": str(value) for key, value in (found.get("costs") or {}).items() if value is not None}
        with explained(self._uri):
            run: str = self._client.create_run(self._experiment, int(time.time() * 1000), {}, title).info.run_id
            self._log(run, params=texts["param"], metrics=metrics, tags=costs | texts["tag"])
            self._client.set_terminated(run, "FINISHED")
        return run

    def trials(self) -> list[Row]:
        """Every stored training run, oldest first: the columns, then `run_id` and `started` (UTC, ISO 8601)."""
        return [as_row(run, COLUMNS) for run in self._runs()]
