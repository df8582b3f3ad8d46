"""Which stored rows a plot is of: never two scenarios mixed, since only like may be compared (E1, E10, E16)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from gibench.spec import Spec, parse

from .ranks import CONTROLS, SCENARIO

# What the rows of a plot share, but for what it shows them over. `variant` is `attack` as people write it.
_SHARED = (
    *(name for name in SCENARIO if name != "model"),
    *("network", "width", "defense", "name", "variant", "hardware"),
)
_BATCH = ("batch_size", "width", "labels")


def describe(rows: pd.DataFrame, shorten: Callable[[str, str], str]) -> pd.DataFrame:
    """The rows that ran, ready to be picked from.

    Args:
        rows: from `gibench.leaderboard.table.table`, each cell once.
        shorten: kind of plugin and canonical spec to the spec without what has its default value.

    Returns:
        The rows that were not skipped, numbers as floats, with `control` filled where rows lack it, and the columns
        name (of the attack), variant (its shortened spec), defended (that of the defense), network (the model without
        its width) and width.
    """
    ran = rows[rows["status"] != "skipped"]
    ran = ran.astype(dict.fromkeys(ran.select_dtypes(["Int64", "Float64"]), float))
    models = [parse(model) for model in ran["model"]]
    widths = [dict(model.settings).get("width") for model in models]
    return ran.assign(
        name=[parse(attack).name for attack in ran["attack"]],
        variant=[shorten("attack", attack) for attack in ran["attack"]],
        defended=[shorten("defense", defense) for defense in ran["defense"]],
        network=[str(Spec(model.name, tuple(s for s in model.settings if s[0] != "width"))) for model in models],
        control=[
            parse(attack).name in CONTROLS if pd.isna(flag) else bool(flag)
            for attack, flag in zip(ran["attack"], ran["control"], strict=True)
        ],
        width=pd.Series(widths, index=ran.index, dtype=float),
    )


def scaling(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `spearpp` over batch size and width."""
    return most(_of(rows, "spearpp"), ("batch_size", "width"))


def wall(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `spear`, whatever its budget, over the batch size, and `spearpp` in the same scenario."""
    sampled = most(_of(rows, "spear"), ("batch_size", "variant"))
    shared = [name for name in _SHARED if name not in ("batch_size", "name", "variant")]
    beside = _of(rows, "spearpp")
    beside = beside[beside.set_index(shared).index.isin(sampled.set_index(shared).index)]
    return pd.concat([sampled, most(beside, ("batch_size",))])


def hard_batches(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `spearpp` at the batch sizes that were attacked under several label policies."""
    return _compared(most(_of(rows, "spearpp"), ("labels", "batch_size")), "batch_size", "labels")


def training(rows: pd.DataFrame) -> pd.DataFrame:
    """Of `spearpp` at the widths that were attacked after several numbers of training steps."""
    return _compared(most(_of(rows, "spearpp"), ("train_steps", "width")), "width", "train_steps")


def objectives(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the variants of `spearpp` that differ in how they search alone, on the same batches."""
    search = {"objective", "optimizer", "rounding", "step", "preset"}
    found = _of(rows, "spearpp")
    return _variants(found.loc[[changed(variant) <= search for variant in found["variant"]]])


def ablation(rows: pd.DataFrame) -> pd.DataFrame:
    """Of the variants of `spearpp` that leave something out, and the attack with everything, on the same batches."""
    found = _of(rows, "spearpp")
    return _variants(found.loc[[not changed(variant) & {"objective", "optimizer"} for variant in found["variant"]]])


def changed(variant: str) -> set[str]:
    """The settings of an attack that do not have their default value."""
    return {key for key, _ in parse(variant).settings}


def _of(rows: pd.DataFrame, *attacks: str) -> pd.DataFrame:
    """The attacks' rows on networks that have a width."""
    return rows[rows["name"].isin(attacks) & rows["width"].notna()]


def _variants(rows: pd.DataFrame) -> pd.DataFrame:
    """Several variants on each kind of batch: the seeds most of them ran on, and the variants that have them all."""
    picked = most(rows, ("variant", *_BATCH))
    batch = list(_BATCH)
    shared = picked.groupby([*batch, "seed"], dropna=False)["variant"].transform("nunique").rename("shared")
    picked = picked[shared == shared.groupby([picked[name] for name in batch], dropna=False).transform("max")]
    seeds = picked.groupby([*batch, "variant"], dropna=False)["seed"].transform("nunique")
    picked = picked[seeds == seeds.groupby([picked[name] for name in batch], dropna=False).transform("max")]
    return picked[picked.groupby(batch, dropna=False)["variant"].transform("nunique") > 1]


def _compared(rows: pd.DataFrame, by: str, over: str) -> pd.DataFrame:
    """The rows of those values of `by` that have several of `over`."""
    return rows[rows.groupby(by, dropna=False)[over].transform("nunique") > 1]


def most(rows: pd.DataFrame, over: Sequence[str]) -> pd.DataFrame:
    """The rows of one scenario: the one with the most points to show, then with the most rows."""
    shared = [name for name in _SHARED if name not in over]
    scenarios = [group for _, group in rows.groupby(shared, dropna=False)]
    return max(scenarios, key=lambda group: (len(group[list(over)].drop_duplicates()), len(group)), default=rows)
