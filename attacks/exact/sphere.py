"""The unit sphere, columns of `[B, N]`, and Riemannian Adam on it: all points at once, none of which sees another."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

_BETA1, _BETA2 = 0.9, 0.999
_SMALLEST = 1e-12  # what a gradient's scale is at least


def normalized(vectors: Tensor) -> Tensor:
    """Each column at unit length."""
    unit: Tensor = vectors / vectors.norm(dim=0)
    return unit


def tangent(points: Tensor, vectors: Tensor) -> Tensor:
    """Vectors `[B, N]` without their part along the points."""
    return vectors - points * (points * vectors).sum(dim=0)


def random_starts(dimension: int, count: int, avoid: Tensor | None, generator: torch.Generator) -> Tensor:
    """Unit vectors `[dimension, count]`, float32, orthogonal to the columns of `avoid` (deflation) if there are any."""
    return normalized(outside(torch.randn(dimension, count, generator=generator, device=generator.device), avoid))


def outside(vectors: Tensor, avoid: Tensor | None) -> Tensor:
    """Vectors `[B, N]` without their part in the span of the columns of `avoid`, if it leaves any."""
    if avoid is None or not 0 < avoid.shape[1] < len(vectors):
        return vectors
    span = torch.linalg.qr(avoid).Q.to(vectors.dtype)
    for _ in range(2):  # little may be left of a row, and what is left must be orthogonal all the same
        vectors = vectors - span @ (span.T @ vectors)
    return vectors


def decayed(step: float, iteration: int, iterations: int) -> float:
    """The step of an iteration: to zero along half a cosine."""
    return step * 0.5 * (1 + math.cos(math.pi * iteration / iterations))


def radam(
    gradient: Callable[[Tensor], Tensor],
    points: Tensor,
    iterations: int,
    step: float,
    expired: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Riemannian Adam (Becigneul and Ganea, ICLR 2019), its step decayed along a cosine.

    A sphere is one manifold, so each point has one second moment; Adam's normalised direction has about unit length.
    Points move along the tangent space and are normalised (the projection retraction).

    Args:
        gradient: of what is minimised, at unit vectors `[B, N]`; its part along the points is left out.
        points: unit vectors to start from.
        iterations: how many steps.
        step: the first one, in radians.
        expired: asked before every step; the points come back as they are by then.
    """
    momentum = torch.zeros_like(points)
    second = points.new_zeros(points.shape[1])
    for iteration in range(iterations):
        if expired():
            break
        slope = tangent(points, gradient(points))
        momentum = _BETA1 * momentum + (1 - _BETA1) * slope
        second = _BETA2 * second + (1 - _BETA2) * slope.square().sum(dim=0)
        scale = (second / (1 - _BETA2 ** (iteration + 1))).sqrt().clamp_min(_SMALLEST)
        rate = decayed(step, iteration, iterations) / (1 - _BETA1 ** (iteration + 1))
        points = normalized(points - rate * momentum / scale)
        momentum = tangent(points, momentum)  # carried to the new point's tangent space
    return points
