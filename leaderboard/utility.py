"""From stored training runs to what a defense costs, and to the `utility_accuracy` of attacked cells (rule E13)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from gibench.axes import scenario_of
from gibench.result import Row
from gibench.spec import parse
from gibench.utility.job import TrialAxes, TrialRow

FALLBACK = ("cifar10", "digits")  # what is trained on in the place of data that are too few, best first
SCENARIO = scenario_of(TrialAxes)


def summarize(rows: Iterable[TrialRow]) -> list[dict[str, Any]]:
    """One line for every defense in every scenario, in the order they come.

    `accuracy`, `loss`, `round_s` and `round_bytes` are means over the seeds that ran; `accuracy_low` and
    `accuracy_high` the least and the largest; `accuracy_lost`, `overhead` (of the clients' seconds) and `bytes_share`
    compare them with `none`, and are None where it was not run, or, for the seconds, on other hardware. `n_tried`
    counts the seeds that ran, `n_ok` those that did not diverge.
    """
    groups: dict[tuple[Any, ...], list[TrialRow]] = {}
    for row in rows:
        groups.setdefault(tuple(getattr(row, name) for name in (*SCENARIO, "defense")), []).append(row)
    return [_line(group, groups.get((*scenario[:-1], "none"), [])) for scenario, group in groups.items()]


def joined(rows: Iterable[Row], trials: Iterable[TrialRow]) -> list[Row]:
    """Attacked cells with `utility_accuracy`: the mean over seeds of the runs with their defense, model and batch size.

    Beside it stands `utility_epsilon`, what those runs promise as a whole, where they promise anything. Runs on the
    cell's own data set count first, then those on `FALLBACK`; of several numbers of rounds the largest. What diverged
    counts with the accuracy it had; a cell that no run is of keeps what it has.
    """
    lines = summarize(newest(trials))
    lines.sort(key=lambda line: line["rounds"])
    names = {line["dataset"]: parse(line["dataset"]).name for line in lines}
    found: dict[tuple[Any, ...], dict[str, float | None]] = {
        (*(line[name] for name in ("defense", "model", "batch_size")), key): {
            "utility_accuracy": line["accuracy"],
            "utility_epsilon": line["run_epsilon"],
        }
        for line in lines
        if line["accuracy"] is not None
        for key in (line["dataset"], names[line["dataset"]])
    }

    def utility(row: Row) -> dict[str, Any]:
        for dataset in (row.dataset, *FALLBACK):
            key = (row.defense, row.model, row.batch_size, dataset)
            if key in found:
                return found[key]
        return {}

    return [replace(row, **columns) if (columns := utility(row)) else row for row in rows]


def newest(trials: Iterable[TrialRow]) -> list[TrialRow]:
    """The training runs without those that a later one with the same settings and seed replaces."""
    latest: dict[tuple[Any, ...], TrialRow] = {}
    for row in sorted(trials, key=lambda row: (row.started, row.run_id)):
        latest[tuple(getattr(row, name) for name in (*SCENARIO, "defense", "seed"))] = row
    return list(latest.values())


def _line(group: Sequence[TrialRow], plain: Sequence[TrialRow]) -> dict[str, Any]:
    tried = [row for row in group if row.status != "skipped"]
    line: dict[str, Any] = {name: getattr(group[0], name) for name in (*SCENARIO, "defense")}
    line |= {
        name: _mean(tried, name)
        for name in ("accuracy", "loss", "round_s", "round_bytes", "epsilon", "run_epsilon", "delta")
    }
    accuracies = [row.accuracy for row in tried if row.accuracy is not None]
    line |= {
        "accuracy_low": min(accuracies, default=None),
        "accuracy_high": max(accuracies, default=None),
        "n_ok": sum(row.status == "ok" for row in tried),
        "n_tried": len(tried),
        "reason": next((row.reason for row in group if row.reason), None),
        "accuracy_lost": None,
        "overhead": None,
        "bytes_share": None,
    }
    if tried and plain:
        without = {name: _mean(plain, name) for name in ("accuracy", "round_bytes", "round_s")}
        if without["accuracy"] is not None and line["accuracy"] is not None:
            line["accuracy_lost"] = without["accuracy"] - line["accuracy"]
            line["bytes_share"] = _share(line["round_bytes"], without["round_bytes"])
            if len({row.machine for row in (*tried, *plain)}) == 1:
                line["overhead"] = _share(line["round_s"], without["round_s"])
    return line


def _share(value: float | None, of: float | None) -> float | None:
    return value / of if value is not None and of else None


def _mean(rows: Iterable[TrialRow], name: str) -> Any:
    values = [value for row in rows if (value := getattr(row, name)) is not None]
    return fmean(values) if values else None
