"""What tells found images from all others in the two layers' gradients, so that these can be left without them.

Column i of `G^T` is what image i sends back, and so are the columns of the second layer's. A found image can be sent
through the network. Where a ReLU follows, it sends nothing back through the neurons that it leaves inactive: the
vector of the gradient's column space that is zero there is its column. After other activations there are no zeros,
but whatever the loss and the label, an image sends back a combination of the derivatives of the network's outputs. They
are as many as there are classes, and the column is where their span meets the gradient's column space.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..exact.refine import smallest
from ..exact.sphere import normalized
from .next_layer import NextLayer
from .search import minimize

_STEPS = 300, 1e-9  # and their end
_ZERO = 1e-4  # of the mean size of what a layer's neurons receive: within it float32 does not tell who fires
_ROOM = 2  # neurons for each image and class: with fewer, spans meet by chance
_RANK = 1e-5  # of the largest singular value of an image's derivatives: less is rounding


@dataclass(frozen=True)
class PairDirections:
    """What tells an image from all others in the two layers' gradients: orthogonal to the others, in each."""

    first: Tensor  # [B, K], or [B, 0] where nothing tells
    second: Tensor  # [r, K], or [r, 0] where nothing tells

    def select(self, index: Tensor) -> PairDirections:
        """Those of some images."""
        first, second = (part[:, index] if part.shape[1] else part for part in (self.first, self.second))
        return PairDirections(first, second)

    def join(self, other: PairDirections) -> PairDirections:
        """These and then the other ones."""
        first, second = (torch.cat(parts, dim=1) for parts in ((self.first, other.first), (self.second, other.second)))
        return PairDirections(first, second)


def directions_by_products(following: NextLayer, points: Tensor) -> PairDirections:
    """The directions of images, near enough to deflate with.

    Args:
        following: the equations.
        points: of images, `[B, K]`.
    """
    if following.equations.activation.sparse:
        return _by_zeros(following, points)
    return _by_derivatives(following, points)


def _by_zeros(following: NextLayer, points: Tensor) -> PairDirections:
    equations, second = following.equations, following.second
    images = torch.linalg.solve_triangular(following.triangle, points, upper=True)
    first = _least(following.gradient.factors.basis, ~equations.slopes(points), images)
    if following.then is None:
        return PairDirections(first, first.new_zeros(second.rank, 0))
    weight, bias = following.then
    activations = torch.relu(equations.features @ points / (equations.ones @ points))
    received = weight @ activations.to(weight) + bias[:, None]
    inactive = received < -_ZERO * received.abs().mean(dim=0)
    return PairDirections(
        first, _least(second.basis, inactive, equations.activations.T @ activations / second.singular_values[:, None])
    )


def _least(basis: Tensor, inactive: Tensor, start: Tensor) -> Tensor:
    """Unit q `[B, K]` of least `|L q|` on each one's inactive neurons `[m, K]`, from starts `[B, K]`."""
    inactive = inactive.to(basis)

    def normal(vectors: Tensor) -> Tensor:
        return basis.T @ (inactive * (basis @ vectors)) / len(basis)

    return normalized(minimize(normal, normalized(start), *_STEPS))


def _by_derivatives(following: NextLayer, points: Tensor) -> PairDirections:
    factors, second = following.gradient.factors, following.second
    rows = torch.linalg.solve_triangular(following.triangle, points / (following.equations.ones @ points), upper=True)
    derivatives = following.network.derivatives(rows.T @ factors.inputs) if following.network and len(rows.T) else None
    if derivatives is None:
        return PairDirections(points[:, :0], second.basis.new_zeros(second.rank, 0))
    first, after = derivatives
    return PairDirections(_meeting(factors.basis, first[:, following.gradient.live]), _meeting(second.basis, after))


def _meeting(basis: Tensor, spans: Tensor) -> Tensor:
    """Unit q `[B, K]` with `L q` nearest to each span `[K, m, C]`; `[B, 0]` where spans have no room to tell."""
    classes = spans.shape[2]
    if len(basis) < _ROOM * (basis.shape[1] + classes):
        return basis.new_zeros(basis.shape[1], 0)
    left, values, _ = torch.linalg.svd(spans.to(basis), full_matrices=False)
    inside = basis.T @ (left * (values > _RANK * values[:, :1])[:, None])
    found: Tensor = torch.linalg.svd(inside, full_matrices=False)[0][:, :, 0].T
    return found


def directions_by_solves(following: NextLayer, points: Tensor) -> Tensor:
    """The direction of each image, orthogonal to all others: where the image is inactive its column of G^T is zero.

    Args:
        following: the equations, of a ReLU.
        points: of images, `[B, K]`.
    """
    inactive = ~following.equations.slopes(points)
    found: Tensor = smallest(following.gradient.factors, inactive, points)[0][:, :, 0].T
    return found
