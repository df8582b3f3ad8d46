"""Which reconstruction is scored against which true image (rule E5)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

EXACT = 1 / 510  # half a step of the 8-bit grid: a pixel this near rounds to the true value (rule E6)


def match(truth: NDArray[np.float32], images: NDArray[np.float32]) -> list[int | None]:
    """For each true image the index of its reconstruction, or None where there are too few.

    The assignment is optimal: it has as many exact pairs as possible, and of those assignments the least total MSE.
    The least total MSE alone would take an exact image from its truth whenever the swap helps a worse image more.

    Args:
        truth: `[B, ...]` in [0, 1].
        images: `[N, ...]` in [0, 1], N at most B.
    """
    matched: list[int | None] = [None] * len(truth)
    if len(images) == 0:
        return matched
    rows, candidates = (array.reshape(len(array), -1).astype(np.float64) for array in (truth, images))
    # Differences are summed directly: |a|^2 + |b|^2 - 2ab would cancel to noise for nearly exact images.
    cost = cdist(rows, candidates, "sqeuclidean") / rows.shape[1]
    for row, column in zip(*np.nonzero(cost <= EXACT**2), strict=True):
        if is_exact(rows[row], candidates[column]):
            cost[row, column] -= len(rows)  # outweighs whatever the other pairs, of at most 1 each, can save
    for row, column in zip(*linear_sum_assignment(cost), strict=True):
        matched[row] = int(column)
    return matched


def is_exact(truth: NDArray[np.floating], image: NDArray[np.floating]) -> bool:
    """Whether every pixel is within 1/510 of the truth (rule E6)."""
    return bool(np.all(np.abs(truth.astype(np.float64) - image) <= EXACT))
