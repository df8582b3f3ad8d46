"""From stored rows to pandas tables: the rows themselves, and a summary over seeds.

Pure functions: what they know of a run is in its row. Rules E1, E2, E9, E10, E12 and E16 say what may be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from gibench.axes import scenario_of
from gibench.cell import CellAxes
from gibench.result import COLUMNS, Row

SCENARIO = scenario_of(CellAxes)
_GROUP = (*SCENARIO, "defense", "attack")  # one row of the summary: everything but the seed
_FLAGS = ("adaptive", "oracle")
_MEANS = (
    *("exact_rate", "certified_rate", "psnr_mean", "ssim_mean", "lpips_mean", "mse_mean"),
    *("label_accuracy", "labels_found"),
    *("runtime_s", "peak_memory_mb", "model_accuracy", "grad_norm", "utility_accuracy"),
)
_TEXTS = ("accountant", "sampling")
_DTYPES = {bool: "boolean", int: "Int64", float: "Float64", str: "object"}
_SUMMARY: dict[str, str] = {
    **{name: _DTYPES[COLUMNS[name].type] for name in (*_GROUP, *_FLAGS)},
    **dict.fromkeys(("rank", "n_ok", "n_tried", "n_skipped", "false_certificates"), "Int64"),
    **dict.fromkeys((*_MEANS, "epsilon", "delta"), "Float64"),
    **dict.fromkeys((*_TEXTS, "hardware", "reason"), "object"),
}
_LAST = ("run_id", "started")


def table(rows: Iterable[Row]) -> pd.DataFrame:
    """The stored rows, one a line: the columns of `gibench.result.COLUMNS`, then `run_id` and `started`.

    Whole numbers, truth values and rates have pandas' nullable types: what does not apply is `<NA>`, text is None.
    Diagnostics that came with the rows follow as numbers, `<NA>` in the rows that lack one.
    """
    lines = [row.as_dict() for row in rows]
    types = {name: _DTYPES[column.type] for name, column in COLUMNS.items()} | dict.fromkeys(_LAST, "object")
    types |= dict.fromkeys(sorted({name for line in lines for name in line} - types.keys()), "Float64")
    return _frame(lines, types)


def newest(rows: Iterable[Row]) -> list[Row]:
    """The rows without those that a later one of the same scenario, attack, defense and seed replaces.

    Two versions of gibench give such a cell two keys, so the key does not say whether two rows are the same trial.
    """
    latest: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: (row.started, row.run_id)):
        latest[tuple(getattr(row, name) for name in (*_GROUP, "seed"))] = row
    return sorted(latest.values(), key=lambda row: (row.started, row.run_id))


def summarize(rows: Iterable[Row]) -> pd.DataFrame:
    """One line for every attack against every defense in every scenario, over all seeds.

    `n_tried` counts the cells that ran and `n_ok` those that ended `ok`; a mean is over all that ran, the failed ones
    with the score of mid-grey images that their rows hold (rule E9). `n_skipped` cells could never run and have no
    score. `false_certificates` is a sum, `epsilon` and `delta` the largest. `runtime_s` is null where the cells ran on
    different hardware (rule E16). `rank` orders the attacks against one defense in one scenario and threat model by
    `psnr_mean`, best first; an attack that picks with the truth has none (rules E1, E2). `reason` says why cells are
    not ok.

    Args:
        rows: stored rows in any order; of several for one cell the newest counts.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in newest(rows):
        groups.setdefault(tuple(getattr(row, name) for name in _GROUP), []).append(row)
    lines = [_line(group) for group in groups.values()]
    _rank(lines)
    return _frame(sorted(lines, key=_order), _SUMMARY)


def _line(group: Sequence[Row]) -> dict[str, Any]:
    """The summary of the seeds of one attack against one defense."""
    tried = [row for row in group if row.status != "skipped"]
    hardware = sorted({row.hardware for row in tried if row.hardware})
    line: dict[str, Any] = {name: getattr(group[-1], name) for name in (*_GROUP, *_FLAGS)}
    line |= {name: _mean(_values(tried, name)) for name in _MEANS}
    for name in ("label_accuracy", "labels_found"):
        if line[name] is not None:  # a cell that gave no labels where others did has none right
            line[name] = _mean([getattr(row, name) or 0.0 for row in tried])
    line |= {name: max(_values(tried, name), default=None) for name in ("epsilon", "delta")}
    line |= {name: "; ".join(sorted(set(_values(tried, name)))) or None for name in _TEXTS}
    line |= {
        "n_ok": sum(row.status == "ok" for row in tried),
        "n_tried": len(tried),
        "n_skipped": len(group) - len(tried),
        "false_certificates": sum(_values(tried, "false_certificates")) if tried else None,
        "hardware": "; ".join(hardware) or None,
        "reason": _reason(group),
    }
    if len(hardware) > 1:
        line["runtime_s"] = None
    return line


def _values(rows: Iterable[Row], name: str) -> list[Any]:
    return [value for row in rows if (value := getattr(row, name)) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(sorted(values)) / len(values) if values else None  # sorted, so that the order of rows changes no bit


def _reason(group: Sequence[Row]) -> str | None:
    """How the cells ended that are not ok, each reason once with its seeds."""
    seeds: dict[str, list[int]] = {}
    for row in sorted(group, key=lambda row: row.seed):
        if row.status != "ok":
            seeds.setdefault(": ".join(filter(None, (row.status, row.reason))), []).append(row.seed)
    return "; ".join(f"{reason} (seed {', '.join(map(str, found))})" for reason, found in seeds.items()) or None


def _rank(lines: Iterable[dict[str, Any]]) -> None:
    """Number the attacks that may be compared; equal ones share a rank."""
    rivals: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in lines:
        line["rank"] = None
        if line["psnr_mean"] is not None and not line["oracle"]:
            rivals.setdefault(tuple(line[name] for name in (*SCENARIO, "defense")), []).append(line)
    for compared in rivals.values():
        scores = sorted((line["psnr_mean"] for line in compared), reverse=True)
        for line in compared:
            line["rank"] = 1 + scores.index(line["psnr_mean"])


def _order(line: dict[str, Any]) -> tuple[Any, ...]:
    """Scenario by scenario, defense by defense, best attack first."""
    places = tuple((line[name] is None, line[name]) for name in (*SCENARIO, "defense"))
    rank = line["rank"]
    return (*places, rank is None, rank or 0, line["attack"])


def _frame(lines: Sequence[dict[str, Any]], types: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series([line.get(name) for line in lines], dtype=dtype) for name, dtype in types.items()}
    )
