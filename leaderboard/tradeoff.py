"""Leakage and utility over the strength of a defense: epsilon, the share that is pruned, local steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from gibench.spec import Spec, parse, parse_chain

from .figures import BLACK, HUES, RED, new_figure, signed
from .formats import records
from .pick import most

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Kind(NamedTuple):
    """One panel: how strong a defense of this name is in a row, the settings that make it so, and the axis."""

    strength: Callable[[Mapping[str, Any], Mapping[str, str]], float]
    varied: frozenset[str]
    label: str
    logarithmic: bool


def _local_steps(row: Mapping[str, Any], settings: Mapping[str, str]) -> float:
    size = settings["local_batch_size"]
    batches = 1 if size == "none" else math.ceil(row["batch_size"] / int(size))
    return int(settings["epochs"]) * batches


KINDS: Mapping[str, Kind] = {
    "dp": Kind(
        lambda row, settings: math.nan if row["epsilon"] is None else row["epsilon"],
        frozenset({"noise_multiplier", "target_epsilon"}),
        "epsilon of one release; accuracy: of its whole training",
        True,
    ),
    "pruning": Kind(
        lambda row, settings: float(settings["sparsity"]), frozenset({"sparsity"}), "share of the entries pruned", False
    ),
    "fedavg": Kind(_local_steps, frozenset({"epochs"}), "local steps", True),
}


def pick(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one scenario against `none` and against defenses that differ in their strength alone.

    Args:
        rows: from `gibench.leaderboard.pick.describe`.

    Returns:
        The rows with the columns kind (`dp`, `pruning`, `fedavg` or `none`) and strength. A kind that was not run at
        two strengths or more is left out; of several with other settings the one of most strengths is taken.
    """
    placed = [place_of(row) for row in records(rows)]
    columns = {name: [place[number] for place in placed] for number, name in enumerate(("kind", "family", "strength"))}
    found = rows.assign(**columns)
    found = most(found[found["kind"] != ""], ("defense", "name", "variant"))
    counts = found.groupby(["kind", "family"])["strength"].nunique().reset_index().sort_values("strength")
    families = counts[(counts["strength"] > 1) & (counts["kind"] != "none")].groupby("kind")["family"].last().tolist()
    return found[found["family"].isin([*families, "none"])] if families else found.iloc[:0]


def place_of(row: Mapping[str, Any]) -> tuple[str, str, float]:
    """The kind of a row's defense, what it shares with those it is compared with, and its strength.

    The kind is empty where defenses are composed, and where their strength is none of `KINDS`.

    Args:
        row: `defense`, `batch_size` and `epsilon` of a row, or of a line of the summary.
    """
    first, *more = parse_chain(row["defense"])
    if first.name == "none":
        return "none", "none", 0.0
    kind = KINDS.get(first.name)
    if more or kind is None:
        return "", "", math.nan
    strength = kind.strength(row, dict(first.settings))
    family = without(row["defense"], kind.varied)
    return ("", "", math.nan) if math.isnan(strength) else (first.name, family, strength)


def without(defense: str, varied: frozenset[str]) -> str:
    """The spec of one defense without the settings that vary."""
    spec = parse(defense)
    return str(Spec(spec.name, tuple(each for each in spec.settings if each[0] not in varied)))


def draw(rows: pd.DataFrame) -> Figure:
    """PSNR above and exact rate below, a line an attack, over each defense's strength; accuracy on the right axis.

    Accuracy stands over the epsilon of the training that gave it, not of one of its rounds.
    """
    kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
    figure, panels = new_figure(2, len(kinds), size=(1.5 + 4.3 * len(kinds), 7.5))
    attacks = sorted(rows["variant"].unique())
    plain = rows.loc[rows["kind"] == "none", "utility_accuracy"].mean()
    for column, kind in enumerate(kinds):
        group = rows[rows["kind"] == kind]
        for axes, measure in zip(panels[:, column], ("psnr_mean", "exact_rate"), strict=True):
            for number, attack in enumerate(attacks):
                style = "o-" if number < len(HUES) else "s--"
                _line(axes, group[group["variant"] == attack], measure, HUES[number % len(HUES)], attack, style)
            utility = axes.twinx()
            trained = group.assign(strength=group["utility_epsilon"].fillna(group["strength"]))
            _line(utility, trained, "utility_accuracy", BLACK, "accuracy with it", "^:")
            utility.axhline(plain, color=RED, linestyle=":", label="accuracy without")
            utility.set(ylim=(0, 1.05), ylabel="accuracy of training" if column == len(kinds) - 1 else "")
            utility.grid(visible=False)
            utility.spines["right"].set_visible(True)
            axes.set(xlabel=KINDS[kind].label, xscale="log" if KINDS[kind].logarithmic else "linear")
        panels[0, column].set(ylim=(0, 105), ylabel="" if column else "PSNR, dB")
        panels[1, column].set(ylim=(0, 1.05), ylabel="" if column else "share recovered exactly")
        panels[0, column].set_title(without(group["defended"].iloc[0], KINDS[kind].varied))
    handles = [*panels[0, 0].get_legend_handles_labels()], [*utility.get_legend_handles_labels()]
    figure.legend(*(left + right for left, right in zip(*handles, strict=True)), loc="outside upper center", ncols=4)
    return signed(figure, rows)


def _line(axes: Axes, rows: pd.DataFrame, measure: str, color: str, label: str, style: str = "o-") -> None:
    mean = rows.groupby("strength")[measure].mean()
    axes.plot(mean.index, mean, style, color=color, label=label, markersize=4)
