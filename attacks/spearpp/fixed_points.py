"""Looks for all images of a batch as fixed points of the next layer's equations, in rounds of random starts."""

from __future__ import annotations

import torch
from torch import Tensor

from gibench.attack import Context

from ..next_layer import Judged, NextLayer
from .refine import smallest
from .select import independent

_MORE = 8  # starts beside those for each image


def find_images(following: NextLayer, points: Tensor, patience: int, starts: int, context: Context) -> Judged:
    """The best independent points, solved ones first, looked for until as many are solved as the rank says.

    Args:
        following: the equations.
        points: to begin with, `[B, K]`.
        patience: rounds of random starts without a new image after which it gives up.
        starts: of each round, for every image not yet found.
        context: of the attack.
    """
    rank = following.gradient.factors.rank
    best = _best(following, points)
    least, vain = rank + 1, 0
    while True:
        solved = best.select(best.solved.nonzero()[:, 0])
        missing = rank - solved.points.shape[1]
        least, vain = (missing, 0) if missing < least else (least, vain + 1)
        context.progress(f"{rank - missing} of {rank} images found", 1 - missing / rank)
        if not missing or vain >= patience or context.expired():
            return best
        drawn = following.random(starts * missing + _MORE, directions(following, solved.points), context.generator)
        best = _best(following, torch.cat([best.points, following.equations.fixed_points(drawn)], dim=1))


def _best(following: NextLayer, points: Tensor) -> Judged:
    found = following.judge(points)
    order = found.residual.argsort()
    chosen = independent(found.points / found.points.norm(dim=0), order, len(points))
    return found.select(order.new_tensor(chosen))


def directions(following: NextLayer, points: Tensor) -> Tensor:
    """The direction of each image, orthogonal to all others: where the image is inactive its column of G^T is zero.

    Args:
        following: the equations.
        points: of images, `[B, K]`.
    """
    inactive = ~following.equations.patterns(points)
    found: Tensor = smallest(following.gradient.factors, inactive, points)[0][:, :, 0].T
    return found
