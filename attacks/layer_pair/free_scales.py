"""The next layer's equations without the first layer's bias gradient: each image's scale is one more unknown.

A client that scales weights and biases differently (clipping each tensor, a learning rate of its own for biases) shifts
the scale that the bias gradient gives each image, so that no image satisfies its equations. But these tell the scale
too: the pre-activations `W x + b` are linear in the image's coordinates and one number more, what b is multiplied by.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from gibench.attack import Context

from ..exact.linear_layer import EXCESS
from ..exact.sphere import normalized
from .next_layer import Judged, NextLayer, in_coordinates
from .rounds import find_images

_BENT = 1e-6  # of the largest diagonal entry of R: a bias nearer to the span of the features tells no scale


def look_with_free_scales(
    following: NextLayer, found: Judged, patience: int, starts: int, context: Context, *, doubted: bool = False
) -> tuple[NextLayer, Judged]:
    """The equations and images with free scales, where these are more images than were found; else what was found.

    By products alone, until these find more.

    Args:
        following: the equations.
        found: by them.
        patience: see `find_images`, as the rest.
        starts: of each round of solves, for every image not yet found.
        context: of the attack.
        doubted: whether the scales of what was found are, so that none counts.
    """
    solved = 0 if doubted else int(found.solved.sum())
    free = None if solved == following.images or context.expired() else _freed(following, context.generator)
    if free is None:
        return following, found
    rows = torch.cat([found.rows, torch.ones_like(found.rows[:1])])
    near = free.equations.fixed_points(normalized(free.triangle @ rows))
    looked = find_images(free, near, 0, starts, context)
    if int(looked.solved.sum()) <= solved:
        return following, found
    return free, find_images(free, looked.points, patience, starts, context)


def _freed(following: NextLayer, generator: torch.Generator) -> NextLayer | None:
    """The same with one coordinate more, by which the biases are multiplied; None where that is not determined."""
    gradient, factors = following.gradient, following.gradient.factors
    if factors.distinct_neurons - following.second.rank - factors.rank < EXCESS:
        return None
    basis, nothing = factors.basis, torch.zeros_like(factors.inputs[:1])
    other = torch.randn(len(basis), 1, generator=generator, device=basis.device, dtype=basis.dtype)
    other = normalized(other - basis @ (basis.T @ other) / len(basis)) * len(basis) ** 0.5  # zero for no image
    free = replace(
        factors,
        basis=torch.cat([basis, other], dim=1),
        inputs=torch.cat([factors.inputs, nothing]),
        ones=torch.cat([torch.zeros_like(factors.ones), torch.ones_like(factors.ones[:1])]),
        singular_values=torch.cat([factors.singular_values, factors.singular_values[-1:]]),
    )
    freed = in_coordinates(
        replace(gradient, factors=free),
        following.equations.activations,
        following.second,
        following.then,
        following.network,
        free=1,
    )
    diagonal = freed.triangle.diagonal().abs()
    return freed if bool(diagonal[-1] > _BENT * diagonal.max()) else None
