"""Candidates for the images of a batch by matrix products alone: a start and step cost m B, where a solve costs m B^2.

`phi(F c)` lies in the span of V for every image c, see `equations.py`. All starts move at once down the share of it
that lies outside, by Riemannian Adam in float32; what comes near is settled by conjugate gradients, which end in
float64: on its activation pattern, or in Gauss-Newton steps where phi is smooth. What is found already is taken out
before.
"""

from __future__ import annotations

from collections.abc import Callable

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
_NEWTON = (10, 50), (30, 100)  # steps where phi is smooth and of conjugate gradients in each: in float32, then float64
_ERRORS = 20, 0.0  # steps and their end


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
        space: a basis `[B, k]` of where images are looked for.
        starts: `[B, N]`, in that space.
        expired: asked in every step; what has not come near by then is left out.
    """
    single, smooth = following.equations.single(), inside.activation.smooth
    inside = inside.single().within(space.to(single.features))
    points = (torch.linalg.lstsq(space, starts).solution if smooth else space.T @ starts).to(single.features)
    rows = torch.linspace(
        0, len(inside.features) - 1, min(len(inside.features), _ROWS * len(space)), device=points.device
    )
    points, _ = descend(inside.on(rows.long()), points, *_COARSE, expired)
    points, outside = descend(inside, points, *_FINE, expired)
    points = merged(points[:, outside < _NEAR], _MET)
    points = space.to(points) @ points  # of all equations: directions are not exact
    if smooth:
        points = merged(single.newton(points, *_NEWTON[0], expired), 1e-6)
        return following.equations.newton(points.to(space), *_NEWTON[1], expired)
    points = settle(single, points, *_SINGLE, expired)
    return settle(following.equations, merged(points, 1e-6).to(space), *_DOUBLE, expired)


def descend(
    equations: Equations, points: Tensor, steps: int, step: float, expired: Callable[[], bool]
) -> tuple[Tensor, Tensor]:
    """Unit points `[B, K]` after steps from points, and the share of each one's activations outside, `[K]`."""
    forward, span = equations.features, equations.activations
    back, inside = forward.T.contiguous(), span.T.contiguous()

    def slope(points: Tensor) -> Tensor:
        placed = equations.placed(points)
        seen, slopes = equations.activation.with_slopes(forward @ placed)
        held = inside @ seen
        size = seen.square().sum(dim=0)
        pull = (span @ held - held.square().sum(dim=0) / size * seen).mul_(slopes)
        found = back @ pull * (-2 / size)
        if equations.activation.smooth:  # of the points themselves, not of their multiples
            along = equations.ones[:, None] * (placed * found).sum(dim=0)
            found = (found - along) / (equations.ones @ points)
        return found

    points = radam(slope, equations.oriented(normalized(points)), steps, step, expired)
    return points, equations.outside(points)


def settle(
    equations: Equations, points: Tensor, steps: int, patterns: int, end: float, expired: Callable[[], bool]
) -> Tensor:
    """Unit points `[B, K]` that fit their activation patterns best, by conjugate gradients from points near them."""

    def fit(slopes: Tensor, start: Tensor) -> Tensor:
        return normalized(minimize(_normal(equations, slopes.to(start)), start, steps, end))

    points = normalized(points)
    start = equations.slopes(points)
    points = until_stable(fit, equations.slopes, points, start, patterns, expired=expired)[0]
    return equations.oriented(points)


def minimize(normal: Callable[[Tensor], Tensor], start: Tensor, steps: int, end: float) -> Tensor:
    """x of least `x^T N x` among those with the start's part along the start, `[B, K]`, all columns at once.

    Conjugate gradients on the start's complement; a column stops where the residual is below `end`.
    """

    def across(vectors: Tensor) -> Tensor:
        return tangent(start, normal(vectors))

    return start + conjugate_gradients(across, -across(start), steps, end)


def drawn_errors(following: NextLayer, judged: Judged, generator: torch.Generator) -> Tensor:
    """How far a draw of the noise moves each point on its pattern, as a share of its length: `[K]`."""
    equations, still = following.equations, following.equations.still(judged.points)
    slopes = equations.slopes(judged.points).to(still)
    noise = torch.randn(slopes.shape, generator=generator, dtype=slopes.dtype, device=slopes.device) * judged.noise
    normal = _normal(equations, slopes)
    moved = conjugate_gradients(
        lambda vectors: tangent(still, normal(vectors)), tangent(still, _pulled(equations, slopes, noise)), *_ERRORS
    )
    errors: Tensor = moved.norm(dim=0) / judged.points.norm(dim=0)
    return errors


def _normal(equations: Equations, slopes: Tensor) -> Callable[[Tensor], Tensor]:
    """`A^T A` of the equations `A c = 0` of slopes `[m, K]` each."""
    return lambda vectors: _pulled(equations, slopes, slopes * (equations.features @ vectors))


def _pulled(equations: Equations, slopes: Tensor, seen: Tensor) -> Tensor:
    """`A^T` of what is seen, `[m, K]`."""
    span = equations.activations
    pulled: Tensor = equations.features.T @ (slopes * (seen - span @ (span.T @ seen)))
    return pulled


def merged(points: Tensor, gap: float) -> Tensor:
    """Unit points `[B, K]` without those that have met an earlier one."""
    met = torch.triu(points.T @ points > 1 - gap, 1).any(dim=0)
    first: Tensor = points[:, ~met]
    return first
