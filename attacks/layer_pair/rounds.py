"""Looks for all images of a batch by the next layer's equations, in rounds of random starts.

Products (`search.py`) find most images at a fraction of what solves cost; what they miss is looked for by
solves (`Equations.fixed_points`) until those find nothing either. What is found is judged by the same tests whichever
way it came.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from gibench.attack import Context

from ..exact.refine import smallest
from ..exact.select import independent
from . import search
from .equations import Judged, NextLayer

_MORE = 8  # starts beside those for each image


def find_images(following: NextLayer, points: Tensor, patience: int, starts: int, context: Context) -> Judged:
    """The best independent points, solved ones first, looked for until as many are solved as the rank says.

    Args:
        following: the equations.
        points: to begin with, `[B, K]`.
        patience: rounds of solves without a new image after which it gives up; with 0 there are none, products alone.
        starts: of each round of solves, for every image not yet found; one by products.
        context: of the attack.
    """
    equations, rank = following.equations, following.gradient.factors.rank
    nothing = following.judge(points[:, :0])
    best = _Best(nothing, nothing.points).joined(following, points)
    least, by_products, vain = rank + 1, True, 0
    while True:
        missing = rank - best.count
        if missing < least:
            least, by_products, vain = missing, True, 0
        elif by_products:
            by_products = False
        else:
            vain += 1
        context.progress(f"{rank - missing} of {rank} images found", 1 - missing / rank)
        if not missing or (not by_products and vain >= patience) or context.expired():
            return best.found
        if by_products:
            count, space = missing + _MORE, following.space(best.directions)
            new = search.candidates(
                equations, space, following.random(count, space, context.generator), context.expired
            )
        else:
            count = starts * missing + _MORE
            space = following.space(directions(following, best.found.points[:, : best.count]))
            new = equations.fixed_points(following.random(count, space, context.generator))
        best = best.joined(following, new)


@dataclass(frozen=True)
class _Best:
    """The best independent points so far, solved ones first, and the directions of these."""

    found: Judged
    directions: Tensor  # [B, count], near enough to deflate with

    @property
    def count(self) -> int:
        """How many are solved."""
        return self.directions.shape[1]

    def joined(self, following: NextLayer, points: Tensor) -> _Best:
        """The best of these points and further ones `[B, K]`."""
        found = self.found.join(following.judge(points))
        order = found.residual.argsort()
        chosen = order.new_tensor(independent(found.points / found.points.norm(dim=0), order, len(points)))
        found = found.select(chosen)
        solved = chosen[: int(found.solved.sum())]
        fresh = solved >= self.count
        across = points.new_empty(len(points), len(solved))
        across[:, ~fresh] = self.directions[:, solved[~fresh]]
        across[:, fresh] = search.directions(following, found.points[:, : len(solved)][:, fresh])
        return _Best(found, across)


def directions(following: NextLayer, points: Tensor) -> Tensor:
    """The direction of each image, orthogonal to all others: where the image is inactive its column of G^T is zero.

    Args:
        following: the equations.
        points: of images, `[B, K]`.
    """
    inactive = ~following.equations.patterns(points)
    found: Tensor = smallest(following.gradient.factors, inactive, points)[0][:, :, 0].T
    return found
