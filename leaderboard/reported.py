"""What papers report of their attacks, beside what was measured here: never mixed, every line says which it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import pandas as pd

from gibench.spec import parse

COLUMNS = ("source", "attack", "dataset", "batch_size", "width", "metric", "value", "seconds", "note")


def reported() -> pd.DataFrame:
    """The figures that papers state, from `results/reported.csv`."""
    with resources.files(__package__).joinpath("results", "reported.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, dtype={"width": "Int64"})


def compare(summary: pd.DataFrame, shorten: Callable[[str, str], str]) -> pd.DataFrame:
    """A line for each figure a paper states and, below it, one for each batch its attack met here.

    What counts is like what the papers tried: the attack at its defaults, no defense, no training, mixed labels.

    Args:
        summary: from `gibench.leaderboard.table.summarize`.
        shorten: kind of plugin and canonical spec to the spec without what has its default value.

    Returns:
        The columns `COLUMNS`; source is `reported` or `measured here`. Empty if no such attack was measured.
    """
    lines: list[dict[Any, Any]] = []
    for paper in reported().to_dict("records"):
        if measured := list(_measured(summary, str(paper["attack"]), shorten)):
            lines += [{**paper, "source": "reported", "note": f"{paper['paper']}: {paper['note']}"}, *measured]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _measured(summary: pd.DataFrame, name: str, shorten: Callable[[str, str], str]) -> Iterator[dict[str, Any]]:
    alike = {"defense": "none", "train_steps": 0, "labels": "iid", "split": "private"}
    lines = summary[(summary[list(alike)] == pd.Series(alike)).all(axis=1) & (summary["n_tried"] > 0)]
    for line in lines.sort_values("batch_size", kind="stable").to_dict("records"):
        if shorten("attack", line["attack"]) == name:
            model = parse(line["model"])
            network = ",".join(f"{key}={value}" for key, value in model.settings if key != "width")
            seeds = f"{line['n_tried']} seed{'s' if line['n_tried'] > 1 else ''}"
            yield {
                "source": "measured here",
                **{"attack": name, "dataset": line["dataset"], "batch_size": line["batch_size"]},
                "width": dict(model.settings).get("width"),
                **{"metric": "exact rate", "value": line["exact_rate"], "seconds": line["runtime_s"]},
                "note": ", ".join(filter(None, (f"{model.name}:{network}", seeds, line["hardware"]))),
            }
