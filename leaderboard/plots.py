"""From picked rows to matplotlib figures, drawn without a display: pure functions, listed in `PLOTS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from gibench.spec import parse

from . import matrix, noise, pick, tradeoff
from .figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    HUES,
    ORANGE,
    RED,
    SKY,
    STYLE,
    legend,
    log_axis,
    new_figure,
    rate_axis,
    signed,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STAGE = "diagnostics.seconds."
_NEAREST = (-np.inf, 15, 18, 21, 24, 27, 30, np.inf)  # dB: the edges of the bins


class Plot(NamedTuple):
    """One kind of figure: which rows it is of, how they are drawn, what it needs, and whether it draws images too."""

    pick: Callable[[pd.DataFrame], pd.DataFrame]
    draw: Callable[..., Figure]
    needs: str
    images: bool = False


def scaling(rows: pd.DataFrame) -> Figure:
    """Exact and certified rate, lambda, seconds, their shares by stage, and peak memory, over (B, m)."""
    stages = [name for name in rows if str(name).startswith(_STAGE)]
    rows = rows.fillna(dict.fromkeys(stages, 0))  # a stage that a cell did without took it no time
    pairs = rows.assign(pair=_pairs(rows)).sort_values(["width", "batch_size"]).groupby("pair", sort=False)
    mean = pairs.mean(numeric_only=True)
    x = np.arange(len(mean))
    figure, ((rates, seconds), (shares, memory)) = new_figure(2, 2, size=(max(9, 1 + 1.4 * len(x)), 7.5))
    rates.bar(x - 0.2, mean["exact_rate"], 0.4, color=BLUE, label="exact")
    rates.bar(x + 0.2, mean["certified_rate"], 0.4, color=SKY, label="certified")
    if (matching := "diagnostics.sparsity_matching") in mean:
        rates.plot(x, mean[matching], "D", color=BLACK, markersize=5, label="lambda")
    rate_axis(rates, "share of images; lambda: of signs")
    legend(rates)
    for place, (_, group) in zip(x, pairs, strict=True):
        seconds.plot([place] * len(group), group["runtime_s"], "o", color=BLUE, alpha=0.5)
    seconds.plot(x, mean["runtime_s"], "_", color=BLACK, markersize=22, label="mean of the seeds")
    log_axis(seconds, "seconds of the attack")
    legend(seconds)
    _stages(shares, mean)
    memory.bar(x, mean["peak_memory_mb"] / 1024, 0.6, color=GREEN)
    memory.set(ylabel="peak memory in GiB")
    for axes in (rates, seconds, shares, memory):
        axes.set_xticks(x, mean.index)
        axes.set_xlabel("images B, width m")
        axes.grid(visible=False, axis="x")
    return signed(figure, rows)


def wall(rows: pd.DataFrame) -> Figure:
    """Seconds of SPEAR and SPEAR++ over B, and SPEAR's draws beside those expected; exhausted budgets stand out."""
    figure, ((seconds, draws),) = new_figure(1, 2, size=(10, 4.6))
    for (attack, group), color in zip(rows.groupby("name"), (ORANGE, BLUE), strict=False):
        _dots(seconds, group, "runtime_s", color, str(attack))
    log_axis(seconds, "seconds of the attack")
    sampled = rows[rows["name"] == "spear"]
    if {"diagnostics.draws", "diagnostics.expected_draws"} <= set(sampled):
        expected = sampled.groupby("batch_size")["diagnostics.expected_draws"].median()
        draws.plot(expected.index, expected, "--", color=BLACK, label="expected before it starts")
        _dots(draws, sampled, "diagnostics.draws", ORANGE, "drawn by spear")
    log_axis(draws, "row sets drawn")
    for axes in (seconds, draws):
        axes.set_xlabel("images B")
        axes.set_xticks(sorted(rows["batch_size"].unique()))
        axes.margins(x=0.04)
        axes.legend(loc="upper left")
    return signed(figure, rows)


def hard_batches(rows: pd.DataFrame, images: pd.DataFrame) -> Figure:
    """Exact rate by label policy, and by how like an image is to the one most like it in its batch.

    Args:
        rows: as picked.
        images: the per-image tables of the rows, from `Store.images`.
    """
    figure, ((policies, neighbours),) = new_figure(1, 2, size=(10, 4.4), share_y=True)
    table = rows.pivot_table("exact_rate", "labels", "batch_size")
    table = table.reindex([policy for policy in ("unique", "iid", "same") if policy in table.index])
    for number, size in enumerate(table):
        places = np.arange(len(table)) + (number - (len(table.columns) - 1) / 2) * 0.8 / len(table.columns)
        policies.bar(places, table[size], 0.75 / len(table.columns), color=HUES[number % 7], label=f"B = {size:.0f}")
    policies.set_xticks(np.arange(len(table)), table.index)
    policies.set_xlabel("labels of the batch")
    rate_axis(policies, "share of the images recovered exactly")
    legend(policies)
    bins = pd.cut(images["nearest"], _NEAREST, right=False)
    exact = images.groupby(bins, observed=True)["exact"].agg(["mean", "size"])
    x = np.arange(len(exact))
    neighbours.bar(x, exact["mean"], 0.8, color=GREEN)
    counts = [f"{_interval(each)}\nn = {count}" for each, count in zip(exact.index, exact["size"], strict=True)]
    neighbours.set_xticks(x, counts, fontsize="small")
    neighbours.set_xlabel("PSNR to the nearest other image of the batch, dB")
    for axes in (policies, neighbours):
        axes.grid(visible=False, axis="x")
    return signed(figure, rows)


def training(rows: pd.DataFrame) -> Figure:
    """Exact and certified rate and the model's accuracy over the training steps, a panel for each width."""
    widths = sorted(rows["width"].unique())
    figure, (panels,) = new_figure(1, len(widths), size=(1 + 4.5 * len(widths), 4.4), share_y=True)
    for axes, width in zip(panels, widths, strict=True):
        group = rows[rows["width"] == width]
        mean = group.groupby("train_steps")[["exact_rate", "certified_rate", "model_accuracy"]].mean()
        axes.plot(group["train_steps"], group["exact_rate"], "o", color=BLUE, alpha=0.25, markersize=4)
        axes.plot(mean.index, mean["exact_rate"], "o-", color=BLUE, label="exact")
        axes.plot(mean.index, mean["certified_rate"], "s--", color=SKY, label="certified")
        axes.plot(mean.index, mean["model_accuracy"], "^:", color=RED, label="accuracy of the model")
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xticks(mean.index, [f"{steps:.0f}" for steps in mean.index], fontsize="small")
        axes.minorticks_off()
        axes.set(xlabel="training steps before the attack", title=f"width {width:.0f}")
        rate_axis(axes, "share" if width == widths[0] else "")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    return signed(figure, rows)


def objectives(rows: pd.DataFrame) -> Figure:
    """Exact rate and seconds of each objective, optimiser and rounding, at each (B, m)."""

    def label(variant: str, attack: str) -> str:
        settings = dict(parse(attack).settings)
        if "preset" in pick.changed(variant):
            return f"preset {settings['preset']}"
        return ", ".join(settings.get(key, "default") for key in ("objective", "optimizer", "rounding"))

    labels = [label(*pair) for pair in zip(rows["variant"], rows["attack"], strict=True)]
    return _bars(rows.assign(label=labels))


def ablation(rows: pd.DataFrame) -> Figure:
    """Exact and certified rate and seconds without each part of the attack, beside those with all of them."""
    settings = [", ".join(f"{key}={value}" for key, value in parse(variant).settings) for variant in rows["variant"]]
    return _bars(rows.assign(label=[text or "everything" for text in settings]))


PLOTS: Mapping[str, Plot] = {
    "scaling": Plot(pick.scaling, scaling, "spearpp on mlp models"),
    "wall": Plot(pick.wall, wall, "spear, and of spearpp beside it"),
    "hard_batches": Plot(pick.hard_batches, hard_batches, "spearpp under two label policies or more", images=True),
    "training": Plot(pick.training, training, "spearpp after two numbers of training steps or more"),
    "objectives": Plot(pick.objectives, objectives, "spearpp with two objectives, optimisers or roundings or more"),
    "ablation": Plot(pick.ablation, ablation, "spearpp at its defaults and with settings that leave something out"),
    "privacy_utility": Plot(
        tradeoff.pick, tradeoff.draw, "dp, pruning or fedavg, each alone, at two strengths or more"
    ),
    "noise": Plot(noise.pick, noise.draw, "attacks against noise at two standard deviations or more"),
    "matrix": Plot(matrix.pick, matrix.draw, "two attacks or more against two defenses or more"),
}


def draw(plot: Plot, *tables: pd.DataFrame) -> Figure:
    """The figure of picked rows, and of their per-image tables where `plot.images` asks for them."""
    from matplotlib import rc_context

    with rc_context(STYLE):  # type: ignore[arg-type]
        return plot.draw(*tables)


def _bars(rows: pd.DataFrame) -> Figure:
    """A bar for each label and (B, m): the rates, and the seconds beside them; best on top."""
    rows = rows.assign(pair=_pairs(rows, across=True)).sort_values(["width", "batch_size"])
    pairs = list(dict.fromkeys(rows["pair"]))
    best = rows.groupby("label")["exact_rate"].mean().sort_values(kind="stable")
    best = best.loc[sorted(best.index, key=lambda label: (label == "everything", best[label]))]
    figure, ((rates, seconds),) = new_figure(1, 2, size=(11, 1.6 + len(best) * (0.2 + 0.2 * len(pairs))), share_y=True)
    height = 0.8 / len(pairs)
    for number, pair in enumerate(pairs):
        mean = rows[rows["pair"] == pair].groupby("label").mean(numeric_only=True).reindex(best.index)
        places = np.arange(len(best)) + ((len(pairs) - 1) / 2 - number) * height
        rates.barh(places, mean["exact_rate"], height * 0.9, color=HUES[number % 7], label=pair)
        rates.plot(mean["certified_rate"], places, "|", color=BLACK, markersize=40 * height, markeredgewidth=2)
        seconds.plot(mean["runtime_s"], places, "o", color=HUES[number % 7])
    rates.plot([], [], "|", color=BLACK, markersize=10, markeredgewidth=2, label="certified")
    rates.set_yticks(np.arange(len(best)), best.index)
    rates.set_ylim(-0.6, len(best) - 0.4)
    rates.set(xlim=(0, 1.02), xlabel="share of the images recovered exactly")
    log_axis(seconds, "seconds of the attack, mean", across=True)
    for axes in (rates, seconds):
        axes.grid(visible=False, axis="y")
    figure.legend(loc="outside upper center", ncols=min(4, len(pairs) + 1))
    return signed(figure, rows)


def _stages(axes: Axes, mean: pd.DataFrame) -> None:
    """The share of the attack's time in each of its stages, the smaller ones together, with the total above."""
    stages = mean.filter(like=_STAGE).rename(columns=lambda name: str(name).removeprefix(_STAGE))
    shares = stages.div(mean["runtime_s"], axis="index")
    largest = list(shares.max().sort_values(ascending=False).index[: len(HUES)])
    shares = shares[largest].assign(other=(1 - shares[largest].sum(axis=1)).clip(lower=0))
    x, base = np.arange(len(mean)), np.zeros(len(mean))
    for stage, color in zip(shares, (*HUES[: len(largest)], GREY), strict=True):
        axes.bar(x, shares[stage], 0.6, bottom=base, color=color, label=stage)
        base = base + shares[stage].to_numpy()
    for place, total in zip(x, mean["runtime_s"], strict=True):
        axes.annotate(f"{total:.3g} s", (place, 1.02), ha="center", fontsize="small")
    rate_axis(axes, "share of the attack's seconds")
    axes.set_ylim(0, 1.1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=4)


def _dots(axes: Axes, rows: pd.DataFrame, column: str, color: str, label: str) -> None:
    """A dot a cell, with a line through the medians of those that ended ok; open triangles are lower bounds."""
    median = rows[rows["status"] == "ok"].groupby("batch_size")[column].median()
    axes.plot(median.index, median, "-", color=color, label=label)
    for status, group in rows.groupby("status"):
        more = "" if status == "ok" else f"{label}, {status}".replace("_", " ")
        marker = {"ok": "o", "budget_exhausted": "^"}.get(str(status), "x")
        face = color if status == "ok" else "white"
        axes.plot(group["batch_size"], group[column], marker, color=color, markerfacecolor=face, label=more, alpha=0.8)


def _pairs(rows: pd.DataFrame, across: bool = False) -> list[str]:
    """The batch and width of each row as a label."""
    sizes = zip(rows["batch_size"], rows["width"], rows["labels"], strict=True)
    if not across:
        return [f"{batch:.0f}\n{width:.0f}" for batch, width, _ in sizes]
    several = rows["labels"].nunique() > 1
    return [f"B = {batch:.0f}, m = {width:.0f}{f', {labels}' if several else ''}" for batch, width, labels in sizes]


def _interval(each: pd.Interval) -> str:
    if np.isinf(each.left):
        return f"under {each.right:g}"
    return f"{each.left:g} up" if np.isinf(each.right) else f"{each.left:g}-{each.right:g}"
