"""From stored training runs to what a defense costs, and to the `utility_accuracy` of attacked cells (rule E13)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from gibench.result import Row
from gibench.spec import parse

FALLBACK = ("cifar10", "digits")  # what is trained on in the place of data that are too few, best first
SCENARIO = ("dataset", "model", "batch_size", "rounds", "device")


def summarize(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One line for every defense in every scenario, in the order they come.

    `accuracy`, `loss`, `round_s` and `round_bytes` are means over the seeds that ran; `accuracy_low` and
    `accuracy_high` the least and the largest; `accuracy_lost`, `overhead` (of the clients' seconds) and `bytes_share`
    compare them with `none`, and are None where it was not run, or, for the seconds, on other hardware. `n_tried`
    counts the seeds that ran, `n_ok` those that did not diverge.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in (*SCENARIO, "defense")), []).append(row)
    return [_line(group, groups.get((*scenario[:-1], "none"), [])) for scenario, group in groups.items()]


def joined(rows: Iterable[Row], trials: Iterable[Row]) -> list[Row]:
    """Attacked cells with `utility_accuracy`: the mean over seeds of the runs with their defense, model and batch size.

    Runs on the cell's own data set count first, then those on `FALLBACK`; of several numbers of rounds the largest.
    What diverged counts with the accuracy it had; a cell that no run is of keeps what it has.
    """
    lines = summarize(newest(trials))
    lines.sort(key=lambda line: line["rounds"])
    names = {line["dataset"]: parse(line["dataset"]).name for line in lines}
    found: dict[tuple[Any, ...], float] = {
        (*(line[name] for name in ("defense", "model", "batch_size")), key): line["accuracy"]
        for line in lines
        if line["accuracy"] is not None
        for key in (line["dataset"], names[line["dataset"]])
    }

    def accuracy(row: Row) -> float | None:
        for dataset in (row["dataset"], *FALLBACK):
            key = (row["defense"], row["model"], row["batch_size"], dataset)
            if key in found:
                return found[key]
        return None

    return [row if (value := accuracy(row)) is None else row | {"utility_accuracy": value} for row in rows]


def newest(trials: Iterable[Row]) -> list[Row]:
    """The training runs without those that a later one with the same settings and seed replaces."""
    latest: dict[tuple[Any, ...], Row] = {}
    for row in sorted(trials, key=lambda row: (row["started"], row["run_id"])):
        latest[tuple(row[name] for name in (*SCENARIO, "defense", "seed"))] = row
    return list(latest.values())


def _line(group: Sequence[Row], plain: Sequence[Row]) -> dict[str, Any]:
    tried = [row for row in group if row["status"] != "skipped"]
    line: dict[str, Any] = {name: group[0][name] for name in (*SCENARIO, "defense")}
    line |= {name: _mean(tried, name) for name in ("accuracy", "loss", "round_s", "round_bytes", "epsilon")}
    accuracies = [row["accuracy"] for row in tried]
    line |= {
        "accuracy_low": min(accuracies, default=None),
        "accuracy_high": max(accuracies, default=None),
        "n_ok": sum(row["status"] == "ok" for row in tried),
        "n_tried": len(tried),
        "reason": next((row["reason"] for row in group if row["reason"]), None),
        "accuracy_lost": None,
        "overhead": None,
        "bytes_share": None,
    }
    if tried and plain:
        line["accuracy_lost"] = fmean(row["accuracy"] for row in plain) - fmean(accuracies)
        line["bytes_share"] = line["round_bytes"] / fmean(row["round_bytes"] for row in plain)
        if len({row["hardware"] for row in (*tried, *plain)}) == 1:
            line["overhead"] = line["round_s"] / fmean(row["round_s"] for row in plain)
    return line


def _mean(rows: Iterable[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row.get(name) is not None]
    return fmean(values) if values else None
