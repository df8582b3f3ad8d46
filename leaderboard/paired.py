"""Two attacks on the same batches, seed by seed: how often either is better, and by how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from gibench.errors import UsageError
from gibench.result import Row

from .columns import Line, Shorten, Show, Shown, plain, within
from .intervals import bootstrap, sign_test
from .ranks import COMPARED, SCENARIO
from .relative import Group, Place, shared
from .sections import Quote, Report, in_full

_DIFFERENCES = {"exact": "exact_rate", "psnr": "psnr_median"}  # by how their columns begin
_TYPES: Mapping[str, str] = {
    **dict.fromkeys((*SCENARIO, "defense", "attack", "other"), "object"),
    **dict.fromkeys(("n_pairs", "n_better", "n_worse", "n_equal"), "Int64"),
    "p_value": "Float64",
    **{f"{name}_{end}": "Float64" for name in _DIFFERENCES for end in ("difference", "low", "high")},
}


def compare(firsts: Mapping[Place, Group], seconds: Mapping[Place, Group], shorten: Shorten = in_full) -> pd.DataFrame:
    """A line for each scenario and defense that both attacks met.

    Of a pair of cells that one is better whose exact rate is higher, or, where that is the same, whose median PSNR is
    (rule E21); what failed counts with its score (rule E9). `p_value` is of the two-sided sign test over `n_better` and
    `n_worse`. `exact_difference` and `psnr_difference` (dB, of the cells' medians) are means over the pairs, the first
    attack less the second, with their 95 % bootstrap intervals over pairs, None of fewer than two.

    Args:
        firsts: the groups of the first attack, by their place.
        seconds: those of the second.
        shorten: kind of plugin and canonical spec to what errors call them.

    Raises:
        UsageError: they share no batch, or are the same.
    """
    names = [shorten("attack", next(iter(groups.values()))[-1].attack) for groups in (firsts, seconds)]
    places = [place for place in firsts if place in seconds]
    if any(firsts[place] is seconds[place] for place in places):
        raise UsageError(f"{names[0]} is compared with itself: name two attacks")
    lines = [_line(firsts[place], seconds[place]) for place in places]
    if not any(line["n_pairs"] for line in lines):
        raise UsageError(
            f"{names[0]} and {names[1]} share no seed in any scenario and defense: run both on the same --seed"
        )
    frame = {name: pd.Series([line[name] for line in lines], dtype=dtype) for name, dtype in _TYPES.items()}
    return pd.DataFrame(frame)


def _line(first: Group, second: Group) -> dict[str, Any]:
    pairs = shared(first, second)
    signs = [(_worth(mine) > _worth(its)) - (_worth(mine) < _worth(its)) for mine, its in pairs]
    line: dict[str, Any] = {name: getattr(first[-1], name) for name in (*SCENARIO, "defense", "attack")}
    counts = [signs.count(sign) for sign in (1, -1, 0)]
    line |= {"other": second[-1].attack, "n_pairs": len(pairs), "p_value": sign_test(*counts[:2])}
    line |= dict(zip(("n_better", "n_worse", "n_equal"), counts, strict=True))
    for name, column in _DIFFERENCES.items():
        differences = [(getattr(mine, column) or 0.0) - (getattr(its, column) or 0.0) for mine, its in pairs]
        low, high = bootstrap(differences, np.mean)
        mean = fmean(differences) if differences else None
        line |= {f"{name}_difference": mean, f"{name}_low": low, f"{name}_high": high}
    return line


def _worth(row: Row) -> tuple[float, ...]:
    return tuple(getattr(row, name) or 0.0 for name in COMPARED)


def of_pairs(pairs: pd.DataFrame) -> Report:
    """What `compare` gave, for people."""
    return Report(pairs, COLUMNS, True, _notes)


def _notes(lines: list[Line], chosen: Mapping[str, Shown], shorten: Shorten, quote: Quote) -> Iterator[str]:
    names = dict.fromkeys((shorten("attack", line["attack"]), shorten("attack", line["other"])) for line in lines)
    for first, second in names:
        yield (
            f"{first} against {second}, seed by seed: better and worse are by exact rate, then median PSNR; "
            f"differences are means of {first} less {second}"
        )
    yield "cells that failed count with the score of mid-grey images"


def _count(name: str) -> Show:
    return lambda line, shorten: str(line[name])


COLUMNS: Mapping[str, Shown] = {
    "defense": Shown("defense", lambda line, shorten: shorten("defense", line["defense"]), is_text=True),
    "n_pairs": Shown("pairs", _count("n_pairs")),
    "n_better": Shown("better", _count("n_better")),
    "n_worse": Shown("worse", _count("n_worse")),
    "n_equal": Shown("equal", _count("n_equal")),
    "p_value": Shown("sign test p", lambda line, _: "-" if line["p_value"] is None else plain(line["p_value"])),
    "exact_difference": Shown("exact, difference [95 %]", within("exact_difference", "exact_low", "exact_high", 3)),
    "psnr_difference": Shown("median PSNR, dB [95 %]", within("psnr_difference", "psnr_low", "psnr_high", 2)),
}
