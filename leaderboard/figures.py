"""What all figures share: colours, style, axes, and the scenario below. Drawn without a display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind people can tell apart.
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, BLACK, GREY = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000", "#BBBBBB"),
)
HUES = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW)
STYLE = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": "medium",
    "axes.titlelocation": "left",
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "legend.fontsize": "small",
}


def new_figure(rows: int, columns: int, size: tuple[float, float], share_y: bool = False) -> tuple[Figure, Any]:
    """An empty figure, and its panels as an array of `rows` by `columns`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=share_y)


def rate_axis(axes: Axes, label: str) -> None:
    """For shares, from 0 to 1."""
    axes.set_ylim(0, 1.05)
    axes.set_ylabel(label)


def log_axis(axes: Axes, label: str, across: bool = False) -> None:
    """Logarithmic, in plain numbers, with those between the powers of ten where there are few of these."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set(xscale="log", xlabel=label) if across else axes.set(yscale="log", ylabel=label)
    axis, limits = (axes.xaxis, axes.get_xlim()) if across else (axes.yaxis, axes.get_ylim())
    decades = np.log10(limits[1] / limits[0])
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def legend(axes: Axes) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, borderaxespad=0)


def signed(figure: Figure, rows: pd.DataFrame) -> Figure:
    """With the scenario that all rows share below, so that a figure alone says what it is of."""
    shared: Sequence[tuple[str, str]] = (
        *(("{}", "dataset"), ("{}", "network"), ("width {:.0f}", "width")),
        ("batch {:.0f}", "batch_size"),
        *(("{:.0f} training steps", "train_steps"), ("labels {}", "labels"), ("defense {}", "defense")),
        *(("server knows {}", "knows"), ("{}", "dtype"), ("{}", "hardware")),
    )
    same = [text.format(rows[name].iloc[0]) for text, name in shared if rows[name].nunique(dropna=False) == 1]
    seeds = rows["seed"].nunique()
    figure.supxlabel("; ".join([*same, f"{seeds} seed{'s' if seeds > 1 else ''}"]), fontsize="x-small", wrap=True)
    return figure
