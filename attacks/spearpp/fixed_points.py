"""Looks for all images of a batch as fixed points of the next layer's equations, in rounds of random starts."""

from __future__ import annotations

import torch
from torch import Tensor

from gibench.attack import Context

from ..next_layer import Judged, NextLayer
from .refine import smallest
from .select import independent

_MORE = 8  # starts beside those for each image


def find_images(following: NextLayer, points: Tensor, rounds: int, starts: int, context: Context) -> Judged:
    """The best independent points, solved ones first, looked for until as many are solved as the rank says.

    Args:
        following: the equations.
        points: to begin with, `[B, K]`.
        rounds: of random starts at most.
        starts: of each round, for every image not yet found.
        context: of the attack.
    """
    rank = following.gradient.factors.rank
    best = _best(following, points)
    for _ in range(rounds):
        solved = best.select(best.solved.nonzero()[:, 0])
        missing = rank - len(solved.images)
        context.progress(f"{rank - missing} of {rank} images found", 1 - missing / rank)
        if not missing or context.expired():
            break
        drawn = following.random(starts * missing + _MORE, directions(following, solved.points), context.generator)
        best = _best(following, torch.cat([best.points, following.equations.fixed_points(drawn)], dim=1))
    return best


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
