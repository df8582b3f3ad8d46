"""Every attack against every defense in one picture: PSNR as colour and number, exact rate, and accuracy beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from gibench.spec import parse

from .figures import new_figure, signed
from .pick import most

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDES = ("attacks that go by the update alone", "adaptive: they know the defense", "controls")
RANGE = (10, 50)  # dB: from what a guess has to what passes for the original
_LEGEND = "PSNR, dB; in brackets the share that is exact; * with cells that timed out, diverged or failed"
_LONGEST = 40  # characters of a label


def pick(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the scenario with the most pairs of an attack and a defense; none where there is one of either.

    Args:
        rows: from `gibench.leaderboard.pick.describe`.
    """
    found = most(rows, ("defense", "name", "variant"))
    several = found["variant"].nunique() > 1 and found["defense"].nunique() > 1
    return found if several else found.iloc[:0]


def draw(rows: pd.DataFrame) -> Figure:
    """A line a defense, as they were run but `none` first; attacks side by side by kind, the best first; seed means."""
    side = np.where(rows["control"].astype(bool), 2, rows["adaptive"].astype(int))
    rows = rows.assign(side=side, ok=(rows["status"] == "ok").astype(float))
    defenses = sorted(rows["defended"].unique(), key=lambda defense: defense != "none")
    means = rows.groupby(["side", "variant"])["psnr_mean"].mean().reset_index()
    attacks = means.sort_values(["side", "psnr_mean"], ascending=[True, False], kind="stable")
    psnr, exact, ok = (
        rows.pivot_table(measure, "defended", "variant")
        .reindex(index=defenses, columns=attacks["variant"])
        .to_numpy(float)
        for measure in ("psnr_mean", "exact_rate", "ok")
    )
    figure, ((axes,),) = new_figure(1, 1, size=(6 + 0.6 * len(attacks), 3.5 + 0.36 * len(defenses)))
    image = axes.imshow(psnr, cmap="cividis", vmin=RANGE[0], vmax=RANGE[1], aspect="auto")
    figure.colorbar(image, extend="both", shrink=0.5, pad=0.08, label=_LEGEND)
    for (line, column), value in np.ndenumerate(psnr):
        if np.isnan(value):  # not run
            continue
        share, mark = exact[line, column], "" if ok[line, column] == 1 else "*"
        text = f"{value:.1f}{mark}\n({share:.2g})" if share > 0 else f"{value:.1f}{mark}"
        color = "black" if value > sum(RANGE) / 2 else "white"
        axes.text(column, line, text, ha="center", va="center", fontsize="x-small", color=color)
    names = [variant if len(variant) <= _LONGEST else parse(variant).name for variant in attacks["variant"]]
    axes.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor", fontsize="small")
    axes.set_yticks(range(len(defenses)), defenses, fontsize="small")
    axes.grid(visible=False)
    for place, (title, first) in enumerate(zip(_SIDES, np.searchsorted(attacks["side"], range(3)), strict=True)):
        if (attacks["side"] == place).any():
            axes.axvline(first - 0.5, color="white", linewidth=3)
            axes.text(first - 0.4, -0.6, title, va="bottom", fontsize="small")
    accuracy = rows.groupby("defended")["utility_accuracy"].mean().reindex(defenses)
    if accuracy.notna().any():
        right = axes.secondary_yaxis("right")
        texts = ["" if np.isnan(value) else f"{value:.2f}" for value in accuracy]
        right.set_yticks(range(len(defenses)), texts, fontsize="small")
        right.set_ylabel("accuracy of training with the defense")
    return signed(figure, rows)
