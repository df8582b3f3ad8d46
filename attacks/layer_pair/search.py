"""Candidates for the images of a batch by matrix products alone: a start and step cost m B, where a solve costs m B^2.

`relu(F c)` lies in the span of V for every image c, see `equations.py`. All starts move at once down the share of it
that lies outside, by Riemannian Adam in float32; what comes near is settled on its activation pattern by conjugate
gradients, which end in float64. What is found already is taken out before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..exact.conjugate import conjugate_gradients
from ..exact.sphere import normalized, radam, tangent
from ..exact.stable import until_stable
from .equations import Equations
from .next_layer import Judged, NextLayer

_ROWS = 4  # equations for each unknown: they tell most of what all of them tell
_COARSE, _FINE = (120, 1.0), (10, 0.05)  # steps and the first step's length in radians: on those rows, then on all
_NEAR = 2e-3  # share of the activations outside the span below which a point is worth settling
_MET = 1e-3  # of 1 - cos: closer points have met
_SINGLE, _DOUBLE = (30, 5, 1e-6), (200, 2, 1e-14)  # steps for a pattern, patterns, and the end of conjugate gradients
_DIRECTIONS = 300, 1e-9  # steps and their end
_ERRORS = 20, 0.0  # the same
_ZERO = 1e-4  # of the mean size of what a layer's neurons receive: within it float32 does not tell who fires


@dataclass(frozen=True)
class PairDirections:
    """What tells an image from all others in the two layers' gradients: orthogonal to the others, in each."""

    first: Tensor  # [B, K]
    second: Tensor  # [r, K], or [r, 0] where nothing tells

    def select(self, index: Tensor) -> PairDirections:
        """Those of some images."""
        return PairDirections(self.first[:, index], self.second[:, index] if self.second.shape[1] else self.second)

    def join(self, other: PairDirections) -> PairDirections:
        """These and then the other ones."""
        first, second = (torch.cat(parts, dim=1) for parts in ((self.first, other.first), (self.second, other.second)))
        return PairDirections(first, second)


def candidates(
    following: NextLayer, inside: Equations, space: Tensor, starts: Tensor, expired: Callable[[], bool]
) -> Tensor:
    """Unit points `[B, K]` that nearly satisfy the equations, in float64.

    What is found is best taken out of both gradients: of the first layer's the space in which images are looked for is
    left, and of the second's the span in which activations must lie. With one of the two alone, starts end where the
    images that are found would attract them, which are no images there.

    Args:
        following: the equations.
        inside: those that are descended, of all images or of those not found.
        space: an orthonormal basis `[B, k]` of where images are looked for.
        starts: `[B, N]`, in that space.
        expired: asked in every step; what has not come near by then is left out.
    """
    single = following.equations.single()
    inside = inside.single().within(space.to(single.features))
    points = (space.T @ starts).to(single.features)
    rows = torch.linspace(
        0, len(inside.features) - 1, min(len(inside.features), _ROWS * len(space)), device=points.device
    )
    points, _ = descend(inside.on(rows.long()), points, *_COARSE, expired)
    points, outside = descend(inside, points, *_FINE, expired)
    points = merged(points[:, outside < _NEAR], _MET)
    points = settle(single, space.to(points) @ points, *_SINGLE, expired)  # of all equations: directions are not exact
    return settle(following.equations, merged(points, 1e-6).to(space), *_DOUBLE, expired)


def descend(
    equations: Equations, points: Tensor, steps: int, step: float, expired: Callable[[], bool]
) -> tuple[Tensor, Tensor]:
    """Unit points `[B, K]` after steps from points, and the share of each one's activations outside, `[K]`."""
    forward, span = equations.features, equations.activations
    back, inside = forward.T.contiguous(), span.T.contiguous()

    def slope(points: Tensor) -> Tensor:
        seen = (forward @ points).relu_()
        held = inside @ seen
        size = seen.square().sum(dim=0)
        pull = (span @ held - held.square().sum(dim=0) / size * seen).mul_(seen > 0)
        return back @ pull * (-2 / size)

    points = radam(slope, equations.oriented(normalized(points)), steps, step, expired)
    return points, equations.outside(points)


def settle(
    equations: Equations, points: Tensor, steps: int, patterns: int, end: float, expired: Callable[[], bool]
) -> Tensor:
    """Unit points `[B, K]` that fit their activation patterns best, by conjugate gradients from points near them."""

    def fit(patterns: Tensor, start: Tensor) -> Tensor:
        return normalized(minimize(_normal(equations, patterns.to(start)), start, steps, end))

    points = normalized(points)
    start = equations.patterns(points)
    points = until_stable(fit, equations.patterns, points, start, patterns, expired=expired)[0]
    return equations.oriented(points)


def minimize(normal: Callable[[Tensor], Tensor], start: Tensor, steps: int, end: float) -> Tensor:
    """x of least `x^T N x` among those with the start's part along the start, `[B, K]`, all columns at once.

    Conjugate gradients on the start's complement; a column stops where the residual is below `end`.
    """

    def across(vectors: Tensor) -> Tensor:
        return tangent(start, normal(vectors))

    return start + conjugate_gradients(across, -across(start), steps, end)


def directions_by_products(following: NextLayer, points: Tensor) -> PairDirections:
    """The directions of images, near enough to deflate with: least where each image is inactive.

    Args:
        following: the equations.
        points: of images, `[B, K]`.
    """
    equations, second = following.equations, following.second
    images = torch.linalg.solve_triangular(following.triangle, points, upper=True)
    first = _least(following.gradient.factors.basis, ~equations.patterns(points), images)
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

    return normalized(minimize(normal, normalized(start), *_DIRECTIONS))


def drawn_errors(following: NextLayer, judged: Judged, generator: torch.Generator) -> Tensor:
    """How far a draw of the noise moves each point on its pattern, as a share of its length: `[K]`."""
    equations, start = following.equations, normalized(judged.points)
    active = equations.patterns(judged.points).to(start)
    noise = torch.randn(active.shape, generator=generator, dtype=active.dtype, device=active.device) * judged.noise
    normal = _normal(equations, active)
    moved = conjugate_gradients(
        lambda vectors: tangent(start, normal(vectors)), tangent(start, _pulled(equations, active, noise)), *_ERRORS
    )
    errors: Tensor = moved.norm(dim=0) / judged.points.norm(dim=0)
    return errors


def _normal(equations: Equations, active: Tensor) -> Callable[[Tensor], Tensor]:
    """`A^T A` of the equations `A c = 0` of each pattern `[m, K]`."""
    return lambda vectors: _pulled(equations, active, active * (equations.features @ vectors))


def _pulled(equations: Equations, active: Tensor, seen: Tensor) -> Tensor:
    """`A^T` of what is seen, `[m, K]`."""
    span = equations.activations
    pulled: Tensor = equations.features.T @ (active * (seen - span @ (span.T @ seen)))
    return pulled


def merged(points: Tensor, gap: float) -> Tensor:
    """Unit points `[B, K]` without those that have met an earlier one."""
    met = torch.triu(points.T @ points > 1 - gap, 1).any(dim=0)
    first: Tensor = points[:, ~met]
    return first
