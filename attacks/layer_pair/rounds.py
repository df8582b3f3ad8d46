"""Looks for all images of a batch by the next layer's equations, in rounds of random starts.

Products (`search.py`) find most images at a fraction of what solves cost; what they miss is looked for around what is
found, and by solves (`Equations.fixed_points`), in turn, until these find nothing either. What is found is judged by
the same tests whichever way it came.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gibench.attack import Context

from ..exact.select import independent
from ..exact.sphere import normalized
from . import search
from .directions import PairDirections, directions_by_products, directions_by_solves
from .equations import Equations
from .next_layer import Judged, NextLayer

_MOVED = 3.0  # draws of noise within which two points are one image
_MORE = 8  # starts beside those for each image
_BESIDE, _AWAY = 5, 0.3  # starts around each image that is found, and how far from it, as a share of its length


def find_images(following: NextLayer, points: Tensor, patience: int, starts: int, context: Context) -> Judged:
    """The best independent points, solved ones first, looked for until as many are solved as the rank says.

    Args:
        following: the equations.
        points: to begin with, `[B, K]`.
        patience: rounds of solves without a new image after which it gives up; with 0 there are none, products alone.
        starts: of each round of solves, for every image not yet found; one by products.
        context: of the attack.
    """
    count, none = following.images, points[:, :0]
    best = _Best(following.judge(none), 0, directions_by_products(following, none))
    best = best.joined(following, points, context.generator)
    least, way, vain = count + 1, 0, 0
    while True:
        missing = count - best.count
        if missing < least:
            least, way, vain = missing, 0, 0
        else:
            vain += _WAYS[way] is _solves
            way = way + 1 if way + 1 < len(_WAYS) else _AGAIN
        context.progress(f"{best.count} of {count} images found", best.count / count)
        if not missing or (_WAYS[way] is _solves and vain >= patience) or context.expired():
            return best.found
        best = best.joined(following, _WAYS[way](following, best, starts, context), context.generator)


@dataclass(frozen=True)
class _Best:
    """The best independent points so far, solved ones first, and the directions of these."""

    found: Judged
    count: int  # how many are solved
    directions: PairDirections

    def joined(self, following: NextLayer, points: Tensor, generator: torch.Generator) -> _Best:
        """The best of these points and further ones `[B, K]`."""
        found = self.found.join(following.judge(points))
        order = found.residual.argsort()
        spread = None
        if following.gradient.noisy and len(order):  # what is found twice is not found twice at the same point
            spread = _MOVED * search.drawn_errors(following, found, generator)
        unit = normalized(found.points)
        chosen = order.new_tensor(independent(unit, order, following.images, spread))
        found = found.select(chosen)
        solved = chosen[: int(found.solved.sum())]
        known = solved < self.count
        fresh = directions_by_products(following, found.points[:, : len(solved)][:, ~known])
        across = self.directions.select(solved[known]).join(fresh)
        return _Best(found, len(solved), across.select((~known).to(torch.uint8).argsort(stable=True).argsort()))


def _across_both(following: NextLayer, best: _Best, starts: int, context: Context) -> Tensor:
    """By products, what is found taken out of both gradients."""
    return _across(following, following.without(best.directions.second), best, context)


def _across_first(following: NextLayer, best: _Best, starts: int, context: Context) -> Tensor:
    """By products, what is found taken out of the first gradient alone: the second may tell images apart badly."""
    if not best.directions.second.shape[1]:  # as before, then
        return best.directions.first[:, :0]
    return _across(following, following.equations, best, context)


def _across(following: NextLayer, inside: Equations, best: _Best, context: Context) -> Tensor:
    space = following.space(best.directions.first)
    starts = following.random(following.images - best.count + _MORE, space, context.generator)
    return search.candidates(following, inside, space, starts, context.expired)


def _beside(following: NextLayer, best: _Best, starts: int, context: Context) -> Tensor:
    """By products, from points around those found: of near-duplicates neither gradient tells the other's direction."""
    space = following.space(best.directions.first[:, :0])
    found = normalized(best.found.points[:, : best.count]).repeat(1, _BESIDE)
    if not best.count:
        return found
    noise = normalized(following.random(found.shape[1], space, context.generator))
    return search.candidates(following, following.equations, space, found + _AWAY * noise, context.expired)


def _solves(following: NextLayer, best: _Best, starts: int, context: Context) -> Tensor:
    """By solves, across the best directions that are to be had of the first gradient; of a smooth activation by
    products without any."""
    equations, known = following.equations, best.directions.first[:, :0]
    if equations.activation.sparse:
        known = directions_by_solves(following, best.found.points[:, : best.count])
    space = following.space(known)
    drawn = following.random(starts * (following.images - best.count) + _MORE, space, context.generator)
    if equations.activation.smooth:
        return search.candidates(following, equations, space, drawn, context.expired)
    return equations.fixed_points(drawn)


_WAYS = _across_both, _across_first, _beside, _solves  # the next one where one brings nothing
_AGAIN = _WAYS.index(_beside)  # the first of those that are tried again and again
