"""Finds directions q in which `L q` is unusually sparse: local minimisers of a sparsity objective on the sphere.

Source: Bakarsky et al., "SPEAR++", 2025 (l1 with Riemannian Adam is the best of the pairs it compares); Becigneul and
Ganea, "Riemannian Adaptive Optimization Methods", ICLR 2019.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_BETA1, _BETA2 = 0.9, 0.999


def random_starts(dimension: int, count: int, avoid: Tensor | None, generator: torch.Generator) -> Tensor:
    """Unit vectors `[dimension, count]`, float32, orthogonal to the columns of `avoid` (deflation) if there are any."""
    starts = torch.randn(dimension, count, generator=generator, device=generator.device)
    if avoid is not None and 0 < avoid.shape[1] < dimension:
        span = torch.linalg.qr(avoid).Q.to(starts.dtype)
        starts = starts - span @ (span.T @ starts)
    unit: Tensor = starts / starts.norm(dim=0)
    return unit


def minimize_l1(basis: Tensor, starts: Tensor, iterations: int, step: float) -> Tensor:
    """Riemannian Adam on the mean of `|L q|`, all starts at once, with a cosine-decayed step.

    Args:
        basis: L `[m, B]`, whitened (`L^T L = m I`); the search runs in float32.
        starts: unit vectors `[B, N]`.
        iterations: how many steps.
        step: the first step's length, in radians (Adam's normalised direction has about unit length).

    Returns:
        Unit vectors `[B, N]`, float32.
    """
    basis = basis.float()
    transposed = basis.T.contiguous() / len(basis)
    points = starts
    momentum = torch.zeros_like(points)
    second = points.new_zeros(points.shape[1])  # one second moment a start, as the sphere is one manifold point
    for iteration in range(iterations):
        gradient = transposed @ torch.sign(basis @ points)
        gradient -= points * (points * gradient).sum(dim=0)
        momentum = _BETA1 * momentum + (1 - _BETA1) * gradient
        second = _BETA2 * second + (1 - _BETA2) * gradient.square().sum(dim=0)
        rate = step * 0.5 * (1 + math.cos(math.pi * iteration / iterations))
        rate /= 1 - _BETA1 ** (iteration + 1)
        scale = (second / (1 - _BETA2 ** (iteration + 1))).sqrt().clamp_min(1e-12)
        points = points - rate * momentum / scale
        points = points / points.norm(dim=0)
        momentum -= points * (points * momentum).sum(dim=0)  # carried to the new point's tangent space
    return points
