"""PSNR and exact rate over plain noise, beside the Cramer-Rao bound of the same batches."""

from __future__ import annotations

import math
from importlib import resources
from typing import TYPE_CHECKING

import pandas as pd

from gibench.spec import Spec, parse, parse_chain

from .figures import BLACK, GREY, HUES, new_figure, rate_axis, signed
from .pick import most

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LIMIT = "Cramer-Rao bound of the true patterns"


def pick(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one scenario against gaussian `noise` alone, at two strengths or more, with the column `strength`.

    Args:
        rows: from `gibench.leaderboard.pick.describe`.
    """
    found = rows.assign(strength=[_strength(defense) for defense in rows["defense"]])
    found = most(found[found["strength"] > 0], ("defense", "name", "variant"))
    return found if found["strength"].nunique() > 1 else found.iloc[:0]


def _strength(defense: str) -> float:
    first, *more = parse_chain(defense)
    settings = dict(first.settings)
    plain = first.name == "noise" and not more and settings["distribution"] == "gaussian"
    return float(settings["std"]) if plain else math.nan


def draw(rows: pd.DataFrame) -> Figure:
    """PSNR on the left and exact rate on the right over the noise, a line an attack, controls in grey, and the bound.

    PSNR is the median over a batch's images, then the mean over the seeds.
    """
    figure, ((decibels, rates),) = new_figure(1, 2, size=(10.5, 4.6))
    attacks = sorted(rows["variant"].unique(), key=lambda name: (bool(_of(rows, name)["control"].iloc[0]), name))
    for number, attack in enumerate(attacks):
        group = _of(rows, attack)
        control = bool(group["control"].iloc[0])
        color, style = (GREY, ("-.", ":", "--")[number % 3]) if control else (HUES[number % len(HUES)], "o-")
        _line(decibels, group, "psnr_median", color, style, attack)
        _line(rates, group, "exact_rate", color, style, attack)
    limit = _limit(rows)
    _line(decibels, limit, "psnr_median", BLACK, "--", _LIMIT)
    _line(rates, limit, "exact_rate", BLACK, "--", _LIMIT)
    decibels.set_ylabel("PSNR, dB")
    rate_axis(rates, "share of the images recovered exactly")
    for axes in (decibels, rates):
        axes.set(xscale="log", xlabel="standard deviation of the noise on each entry of the gradient")
    figure.legend(*decibels.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return signed(figure, rows)


def bounds() -> pd.DataFrame:
    """What `tests/benchmarks/cramer_rao.py` has written: a line for each batch and noise."""
    with resources.files(__package__).joinpath("results", "cramer-rao.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def _limit(rows: pd.DataFrame) -> pd.DataFrame:
    """The bound for the batches that the rows are of; none of other images, networks or labels than it was taken of."""
    found = bounds()
    row = rows.iloc[0]
    model = parse(row["model"])
    same = [
        str(Spec.of("mlp", {"depth": str(depth), "width": str(width)}))
        for depth, width in zip(found["depth"], found["width"], strict=True)
    ]
    alike = (row["train_steps"], row["labels"], parse(row["dataset"]).name) == (0, "iid", "photos")
    chosen = found[pd.Series([alike and str(model) == each for each in same], index=found.index, dtype=bool)]
    chosen = chosen[(chosen["batch_size"] == row["batch_size"]) & chosen["seed"].isin(rows["seed"])]
    shown = chosen["std"].between(rows["strength"].min(), rows["strength"].max())
    limit: pd.DataFrame = chosen.loc[shown].rename(columns={"std": "strength"})
    return limit


def _of(rows: pd.DataFrame, attack: str) -> pd.DataFrame:
    return rows[rows["variant"] == attack]


def _line(axes: Axes, rows: pd.DataFrame, measure: str, color: str, style: str, label: str) -> None:
    if len(rows):
        mean = rows.groupby("strength")[measure].mean()
        axes.plot(mean.index, mean, style, color=color, label=label, markersize=4)
