"""What an attack has more than another one that met the same batches: decibels above the control, and its time.

All is seed by seed, since batches differ more than attacks do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from gibench.result import Row

from .ranks import SCENARIO, tried

GUESS = "mean-image"  # the control that decibels are counted from: the best guess without the update

Group = Sequence[Row]  # of one attack against one defense in one scenario, every seed once
Place = tuple[object, ...]


def above_guess(groups: Sequence[Group]) -> list[float | None]:
    """Of each group the median, over the seeds that it shares with `mean-image`, of the cells' median PSNR above its.

    In dB; None where no seed is shared, and of `mean-image` itself.
    """
    guesses = {place(group): group for group in groups if group[-1].attack.partition(":")[0] == GUESS}
    pairs = [(group, guesses.get(place(group), ())) for group in groups]
    return [None if group is guess else _decibels(group, guess) for group, guess in pairs]


def times(groups: Sequence[Group], baselines: Mapping[Place, Group]) -> list[float | None]:
    """Of each group the mean seconds over those of the baseline in the same scenario, against the same defense.

    Over the seeds that both ran on one machine with as many jobs at a time (rule E16); None where there are none.
    """
    return [_ratio(group, baselines.get(place(group), ())) for group in groups]


def place(group: Group) -> Place:
    """The scenario and the defense."""
    return tuple(getattr(group[-1], name) for name in (*SCENARIO, "defense"))


def shared(first: Group, second: Group) -> list[tuple[Row, Row]]:
    """The cells that both attacks were tried on, seed by seed."""
    other = {row.seed: row for row in tried(second)}
    return [(row, other[row.seed]) for row in sorted(tried(first), key=lambda row: row.seed) if row.seed in other]


def _decibels(group: Group, guess: Group) -> float | None:
    pairs = [(row.psnr_median, other.psnr_median) for row, other in shared(group, guess)]
    above = [mine - its for mine, its in pairs if mine is not None and its is not None]
    return median(above) if above else None


def _ratio(group: Group, baseline: Group) -> float | None:
    pairs = [(row, other) for row, other in shared(group, baseline) if row.machine and row.machine == other.machine]
    known = [(row.runtime_s, other.runtime_s) for row, other in pairs]
    seconds = [(mine, its) for mine, its in known if mine is not None and its is not None]
    whole = sum(its for _, its in seconds)
    return sum(mine for mine, _ in seconds) / whole if whole else None
