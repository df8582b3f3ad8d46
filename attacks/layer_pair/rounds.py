"""Looks for all images of a batch by the next layer's equations, in rounds of random starts.

Products (`search.py`) find most images at a fraction of what solves cost; what they miss is looked for by
solves (`Equations.fixed_points`) until those find nothing either. What is found is judged by the same tests whichever
way it came.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibench.attack import Context

from ..exact.refine import smallest
from ..exact.select import independent
from . import search
from .equations import Judged, NextLayer

_MORE = 8  # starts beside those for each image
_BOTH, _FIRST, _SOLVES = range(3)  # products, what is found taken out of both gradients, or of the first alone; solves


def find_images(following: NextLayer, points: Tensor, patience: int, starts: int, context: Context) -> Judged:
    """The best independent points, solved ones first, looked for until as many are solved as the rank says.

    Args:
        following: the equations.
        points: to begin with, `[B, K]`.
        patience: rounds of solves without a new image after which it gives up; with 0 there are none, products alone.
        starts: of each round of solves, for every image not yet found; one by products.
        context: of the attack.
    """
    rank, none = following.gradient.factors.rank, points[:, :0]
    best = _Best(following.judge(none), search.directions(following, none)).joined(following, points)
    least, way, vain = rank + 1, _BOTH, 0
    while True:
        missing = rank - best.count
        if missing < least:
            least, way, vain = missing, _BOTH, 0
        elif way == _SOLVES:
            vain += 1
        else:
            way = _FIRST if way == _BOTH and best.directions.second.shape[1] else _SOLVES
        context.progress(f"{rank - missing} of {rank} images found", 1 - missing / rank)
        if not missing or (way == _SOLVES and vain >= patience) or context.expired():
            return best.found
        if way == _SOLVES:
            count = starts * missing + _MORE
            space = following.space(directions(following, best.found.points[:, : best.count]))
            new = following.equations.fixed_points(following.random(count, space, context.generator))
        else:
            known = best.directions if way == _BOTH else best.directions.of_first()
            new = search.candidates(following, known, missing + _MORE, context.generator, context.expired)
        best = best.joined(following, new)


@dataclass(frozen=True)
class _Best:
    """The best independent points so far, solved ones first, and the directions of these."""

    found: Judged
    directions: search.Directions

    @property
    def count(self) -> int:
        """How many are solved."""
        return self.directions.first.shape[1]

    def joined(self, following: NextLayer, points: Tensor) -> _Best:
        """The best of these points and further ones `[B, K]`."""
        found = self.found.join(following.judge(points))
        order = found.residual.argsort()
        chosen = order.new_tensor(independent(found.points / found.points.norm(dim=0), order, len(points)))
        found = found.select(chosen)
        solved = chosen[: int(found.solved.sum())]
        known = solved < self.count
        fresh = search.directions(following, found.points[:, : len(solved)][:, ~known])
        across = self.directions.select(solved[known]).join(fresh)
        return _Best(found, across.select((~known).to(torch.uint8).argsort(stable=True).argsort()))


def directions(following: NextLayer, points: Tensor) -> Tensor:
    """The direction of each image, orthogonal to all others: where the image is inactive its column of G^T is zero.

    Args:
        following: the equations.
        points: of images, `[B, K]`.
    """
    inactive = ~following.equations.patterns(points)
    found: Tensor = smallest(following.gradient.factors, inactive, points)[0][:, :, 0].T
    return found
