"""Minimisers on the unit sphere, all points at once: columns of `[B, N]`, none of which sees another.

Each takes a `Sphere`, unit vectors, the number of iterations and the first step in radians, and gives unit vectors.
Points move along the tangent space and are normalised (the projection retraction). Riemannian Adam is in
`exact/sphere.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ..exact.sphere import decayed, normalized, radam
from .objectives import Sphere

Name = Literal["radam", "rgd", "rtr"]

_SMALLEST = 1e-12  # what a gradient's scale is at least


def _radam(sphere: Sphere, points: Tensor, iterations: int, step: float) -> Tensor:
    return radam(sphere.euclidean, points, iterations, step)


def rgd(sphere: Sphere, points: Tensor, iterations: int, step: float) -> Tensor:
    """Riemannian (sub)gradient descent, its step decayed along a cosine.

    A step is as long as `step` at the first gradient of each point, and in proportion to the gradient later on, so that
    it means the same for every objective.
    """
    scale: Tensor | None = None
    for iteration in range(iterations):
        gradient = sphere.gradient(points)
        if scale is None:
            scale = gradient.norm(dim=0).clamp_min(_SMALLEST)
        points = normalized(points - decayed(step, iteration, iterations) * gradient / scale)
    return points


def rtr(sphere: Sphere, points: Tensor, iterations: int, step: float) -> Tensor:
    """Riemannian trust regions with truncated conjugate gradients (Absil, Baker and Gallivan, FoCM 2007).

    `step` is the first radius; a radius shrinks to a quarter or doubles (to pi at most) as the quadratic model
    deserves. Points whose gradient is below the root of the dtype's precision stay, and cost nothing more.
    """
    points = points.clone()
    precision = torch.finfo(points.dtype).eps
    radius = points.new_full((points.shape[1],), step)
    moving = torch.arange(points.shape[1], device=points.device)
    for _ in range(iterations):
        gradient = sphere.gradient(points[:, moving])
        rough = gradient.norm(dim=0) > precision**0.5
        moving, gradient = moving[rough], gradient[:, rough]
        if not len(moving):
            break
        here, reach = points[:, moving], radius[moving]
        move, bent = _steihaug(sphere.hessian(here), gradient, reach)
        there = normalized(here + move)
        value = sphere.value(here)
        slack = 10 * precision * value.abs().clamp_min(1)  # near the minimum, differences of values are rounding
        promised = -(move * (gradient + bent / 2)).sum(dim=0)
        kept = (value - sphere.value(there) + slack) / (promised + slack)
        outward = (kept > 0.75) & (move.norm(dim=0) > 0.99 * reach)
        reach = torch.where(kept < 0.25, reach / 4, torch.where(outward, (2 * reach).clamp_max(math.pi), reach))
        radius[moving] = reach
        points[:, moving] = torch.where(kept > 0.1, there, here)
    return points


def _steihaug(hessian: Callable[[Tensor], Tensor], gradient: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """The step s within each radius that lowers `g . s + s . H s / 2`, and `H s`: `[B, N]` each.

    By conjugate gradients, until the residual is below a tenth of the first (or below its square), the curvature is not
    positive, or the radius is reached (Steihaug 1983).
    """
    step, bent = torch.zeros_like(gradient), torch.zeros_like(gradient)
    residual, direction = gradient, -gradient
    square = gradient.square().sum(dim=0)
    target = square * square.clamp_max(0.01)  # of the residual's square
    live = square > 0
    for _ in range(max(1, len(gradient) - 1)):
        curved = hessian(direction)
        bend = (direction * curved).sum(dim=0)
        length = square / bend
        a, b, c = (direction.square().sum(dim=0), (step * direction).sum(dim=0), step.square().sum(dim=0))
        to_edge = (-b + (b * b + a * (radius * radius - c)).clamp_min(0).sqrt()) / a
        leaves = (bend <= 0) | (length >= to_edge)
        length = torch.where(live, torch.where(leaves, to_edge, length), 0)
        step, bent = step + length * direction, bent + length * curved
        residual = residual + length * curved
        before, square = square, residual.square().sum(dim=0)
        live = live & ~leaves & (square > target)
        if not bool(live.any()):
            break
        direction = torch.where(live, square / before * direction - residual, direction)
    return step, bent


OPTIMIZERS: dict[Name, Callable[[Sphere, Tensor, int, float], Tensor]] = {"radam": _radam, "rgd": rgd, "rtr": rtr}
