"""How sure a figure is: bootstrap intervals over cells, what a count of none of n allows, and the sign test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_RESAMPLES = 2000
_AT_ONCE = 2**20  # cells of resamples in memory


def bootstrap(
    values: Sequence[float], statistic: Callable[..., NDArray[np.float64]]
) -> tuple[float | None, float | None]:
    """The 95 % percentile interval of a statistic over resampled cells, the same whenever it is asked for.

    Args:
        values: one a cell, in any order.
        statistic: `np.mean` or `np.median`, or what takes `axis` as they do.

    Returns:
        The ends; None of fewer than two cells, which say nothing of how much cells differ.
    """
    if len(values) < 2:
        return None, None
    ordered = np.sort(np.asarray(values, float))
    if ordered[0] == ordered[-1]:  # as exact rates often are
        return float(ordered[0]), float(ordered[0])
    drawn = np.concatenate([statistic(ordered[some], axis=1) for some in _draws(len(values))])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _draws(count: int) -> Iterator[NDArray[np.int64]]:
    """Which cells each resample has, some resamples at a time: those of thousands of cells are too much for memory."""
    if count * _RESAMPLES <= _AT_ONCE:
        yield _drawn(count)
        return
    generator = np.random.default_rng(0)
    step = max(1, _AT_ONCE // count)
    for start in range(0, _RESAMPLES, step):
        yield generator.integers(count, size=(min(step, _RESAMPLES - start), count))


@lru_cache(maxsize=64)
def _drawn(count: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))


def at_most(found: int, of: int) -> float | None:
    """The largest rate that `found` of `of` leave open at 95 %: Clopper and Pearson's upper bound, one-sided.

    Of none it is 1 - 0.05^(1/n), about 3/n. None where nothing was tried.
    """
    if not of:
        return None
    if found == 0:
        return float(1 - (1 - LEVEL) ** (1 / of))
    from scipy.special import betaincinv  # the quantile of the beta distribution; scipy.stats takes a second to import

    return 1.0 if found >= of else float(betaincinv(found + 1, of - found, LEVEL))


def sign_test(better: int, worse: int) -> float | None:
    """The probability of so uneven a split, either way, if each pair were as likely to fall on one side as the other.

    Pairs that are equal say nothing and are left out, as Dixon and Mood do. None where no pair differs.
    """
    of = better + worse
    if not of:
        return None
    tail = sum(comb(of, each) for each in range(min(better, worse) + 1))
    return float(min(1.0, 2 * tail / 2**of))
