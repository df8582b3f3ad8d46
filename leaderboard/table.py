"""From stored rows to pandas tables: the rows themselves, and a summary over seeds.

Pure functions: what they know of a run is in its row. Rules E1, E2, E9, E10, E12, E16 and E21 say what may be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from gibench.result import COLUMNS, Row, StoredRow, columns_of

from .intervals import at_most, bootstrap
from .ranks import SCENARIO, is_control, places, tried
from .relative import Group, Place, above_guess, times

GROUP = (*SCENARIO, "defense", "attack", "source")  # one row of the summary: everything but the seed
_FLAGS = ("adaptive", "oracle", "control")
_NEW = ("recognisable_rate", "reidentified_rate")  # which older rows lack: a mean of the others would not be theirs
_MEANS = (
    *("exact_rate", "certified_rate", "psnr_mean", "ssim_mean", "lpips_mean", "mse_mean", *_NEW),
    *("label_accuracy", "labels_found"),
    *("runtime_s", "peak_memory_mb", "model_accuracy", "grad_norm", "utility_accuracy"),
)
_INTERVALS = (*("exact_low", "exact_high", "psnr_mean_low", "psnr_mean_high", "psnr_median", "psnr_low", "psnr_high"),)
_RELATIVE = ("above_mean_image", "times_baseline")
_LARGEST = ("epsilon", "delta", "run_epsilon", "run_steps", "max_grad_norm")  # of a promise: the weakest
_TEXTS = ("accountant", "sampling", "budget", "torch")
_DTYPES = {bool: "boolean", int: "Int64", float: "Float64", str: "object"}
_SUMMARY: dict[str, str] = {
    **{name: _DTYPES[COLUMNS[name].type] for name in (*SCENARIO, "defense", "attack", *_FLAGS)},
    "source": "object",
    **{"rank": "Int64", "unranked": "object", "above_control": "boolean"},
    **dict.fromkeys(("n_ok", "n_tried", "n_skipped", "n_certified", "false_certificates"), "Int64"),
    **dict.fromkeys(("false_rate_at_most", *_MEANS, *_INTERVALS, *_RELATIVE, "chance"), "Float64"),
    **{name: _DTYPES[COLUMNS[name].type] for name in (*_LARGEST, "noise_multiplier")},
    **dict.fromkeys((*_TEXTS, "hardware", "reason"), "object"),
}
_LAST = ("run_id", "started")


def table(rows: Iterable[StoredRow], kind: type[StoredRow] = Row) -> pd.DataFrame:
    """The stored rows of a kind, one a line: its columns (`gibench.result.columns_of`), then `run_id` and `started`.

    Whole numbers, truth values and rates have pandas' nullable types: what does not apply is `<NA>`, text is None.
    Diagnostics that came with the rows follow as numbers, `<NA>` in the rows that lack one.
    """
    rows = list(rows)
    lines = [row.as_dict() for row in rows]
    types = {name: _DTYPES[column.type] for name, column in columns_of(kind).items()} | dict.fromkeys(_LAST, "object")
    types |= {"source": "object"} if any(row.source for row in rows) else {}
    types |= dict.fromkeys(sorted({name for line in lines for name in line} - types.keys()), "Float64")
    return _frame(lines, types)


def newest(rows: Iterable[Row]) -> list[Row]:
    """The rows without those that a later one of the same scenario, attack, defense and seed replaces.

    Two versions of gibench give such a cell two keys, so the key does not say whether two rows are the same trial.
    """
    latest: dict[tuple[Any, ...], Row] = {}
    for row in sorted(rows, key=lambda row: (row.started, row.run_id)):
        latest[*group_of(row), row.seed] = row
    return sorted(latest.values(), key=lambda row: (row.started, row.run_id))


def grouped(rows: Iterable[Row]) -> list[list[Row]]:
    """The newest row of each cell, those of one attack against one defense in one scenario together."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in newest(rows):
        groups.setdefault(group_of(row), []).append(row)
    return list(groups.values())


def group_of(row: Row) -> tuple[Any, ...]:
    """What one line of the summary is of: the scenario, the defense, the attack, the file if it is of one."""
    return tuple(getattr(row, name) for name in GROUP)


def summarize(rows: Iterable[Row], baselines: Mapping[Place, Group] | None = None) -> pd.DataFrame:
    """One line for every attack against every defense in every scenario, over all seeds.

    `n_tried` counts the cells whose attack ran and `n_ok` those that ended `ok`; a mean is over all that ran, the
    failed ones with the score of mid-grey images that their rows hold (rule E9). `n_skipped` cells did not run and have
    no score. `exact_low` to `exact_high` and `psnr_low` to `psnr_high` are 95 % bootstrap intervals, over cells, of the
    mean exact rate and of `psnr_median`, the median of the cells' medians; `psnr_mean_low` to `psnr_mean_high` is that
    of `psnr_mean`. `above_mean_image` (dB) and `times_baseline` are those of `gibench.leaderboard.relative`, and
    `chance` the rate at which images are re-identified by chance. `false_certificates` is a sum, and
    `false_rate_at_most` the 95 % upper bound of their rate that it leaves open. Of what defenses promise the weakest
    counts. `runtime_s` is null where the cells ran on different hardware, or
    not as many at a time (rule E16). `rank`, `unranked` (why there is
    none) and `above_control` are those of `gibench.leaderboard.ranks`. `reason` says why cells are not ok.

    Args:
        rows: stored rows in any order; of several for one cell the newest counts.
        baselines: the groups that times are compared with, by their place; without it there are no such ratios.
    """
    found = grouped(rows)
    relative = zip(above_guess(found), times(found, baselines or {}), strict=True)
    lines = [
        _line(group) | place._asdict() | dict(zip(_RELATIVE, beside, strict=True))
        for group, place, beside in zip(found, places(found), relative, strict=True)
    ]
    return _frame(sorted(lines, key=_order), _SUMMARY)


def kept(summary: pd.DataFrame, rows: Iterable[Row]) -> pd.DataFrame:
    """The lines of the summary that are of one of these rows."""
    wanted = {group_of(row) for row in rows}
    places = (tuple(line[name] for name in GROUP) for line in records(summary))
    return summary[pd.Series([place in wanted for place in places], dtype=bool)].reset_index(drop=True)


def _line(group: Sequence[Row]) -> dict[str, Any]:
    """The summary of the seeds of one attack against one defense."""
    ran = tried(group)
    hardware = sorted({row.machine for row in ran if row.machine})
    line: dict[str, Any] = {name: getattr(group[-1], name) for name in (*GROUP, *_FLAGS)}
    line |= {"control": is_control(group[-1])}
    line |= {name: _mean(_values(ran, name)) for name in _MEANS}
    line |= {name: None for name in _NEW if len(_values(ran, name)) < len(ran)}
    line |= {"chance": 1 / min(sizes) if (sizes := _values(ran, "split_size")) else None}
    for name in ("label_accuracy", "labels_found"):
        if line[name] is not None:  # a cell that gave no labels where others did has none right
            line[name] = _mean([getattr(row, name) or 0.0 for row in ran])
    line |= {name: max(_values(ran, name), default=None) for name in _LARGEST}
    line |= {"noise_multiplier": min(_values(ran, "noise_multiplier"), default=None)}
    line |= {name: "; ".join(sorted(set(_values(ran, name)))) or None for name in _TEXTS}
    line |= _intervals(ran) | _certificates(ran)
    line |= {
        "n_ok": sum(row.status == "ok" for row in ran),
        "n_tried": len(ran),
        "n_skipped": len(group) - len(ran),
        "hardware": "; ".join(hardware) or None,
        "reason": _reason(group),
    }
    if len(hardware) > 1:
        line["runtime_s"] = None
    return line


def _intervals(ran: Sequence[Row]) -> dict[str, float | None]:
    medians = _values(ran, "psnr_median")
    exact = bootstrap(_values(ran, "exact_rate"), np.mean)
    psnr = bootstrap(medians, np.median)
    mean = bootstrap(_values(ran, "psnr_mean"), np.mean)
    found = (*exact, *mean, float(np.median(medians)) if medians else None, *psnr)
    return dict(zip(_INTERVALS, found, strict=True))


def _certificates(ran: Sequence[Row]) -> dict[str, Any]:
    """How many images were claimed to be exact, and how often that may be false; pictures recur from seed to seed."""
    if not ran:
        return {"n_certified": None, "false_certificates": None, "false_rate_at_most": None}
    claimed = sum(round((row.certified_rate or 0) * (row.n_true or 0)) for row in ran)
    false = sum(_values(ran, "false_certificates"))
    # Images recur from batch to batch, so there are no more distinct ones than the split holds (rule E20).
    sizes = _values(ran, "split_size")
    distinct = min(claimed, *sizes) if sizes else None
    bound = None if distinct is None else at_most(min(false, distinct), distinct)
    return {"n_certified": claimed, "false_certificates": false, "false_rate_at_most": bound}


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


def _order(line: dict[str, Any]) -> tuple[Any, ...]:
    """Scenario by scenario, `none` before the defenses; adaptive attacks after others, best first, controls last."""
    where = tuple((line[name] is None, line[name]) for name in SCENARIO)
    where = (*where, (line["defense"] != "none", line["defense"]))
    rank = line["rank"]
    last = (bool(line["control"]), bool(line["adaptive"]), rank is None, rank or 0, line["attack"])
    return (*where, *last, line["source"] or "")


def _frame(lines: Sequence[dict[str, Any]], types: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {name: pd.Series([line.get(name) for line in lines], dtype=dtype) for name, dtype in types.items()}
    )


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's lines as plain Python values, nulls as None."""
    columns = {str(name): [None if _null(value) else value for value in table[name].tolist()] for name in table}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value))
