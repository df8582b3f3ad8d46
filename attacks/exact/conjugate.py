"""Conjugate gradients for many right-hand sides at once, of matrices that are known by their products alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ASKED = 8  # steps after which it is asked whether any column still moves
_FLAT = 1e-6  # curvature along a unit vector that is none


def conjugate_gradients(
    normal: Callable[[Tensor], Tensor], right: Tensor, steps: int, end: float | Tensor, *, flat: float = _FLAT
) -> Tensor:
    """x of `N x = right`, all columns `[B, K]` at once; one stops where its residual is below `end`, or N is flat."""
    moved = torch.zeros_like(right)
    residual = direction = right
    size = residual.square().sum(dim=0)
    for count in range(steps):
        image = normal(direction)
        curvature = (direction * image).sum(dim=0)
        going = (size.sqrt() > end) & (curvature > flat * direction.square().sum(dim=0))
        if count % _ASKED == 0 and not bool(going.any()):  # not in every step: a device waits for the answer
            break
        step = torch.where(going, size / curvature, 0.0)
        moved = moved + step * direction
        residual = residual - step * image
        new = residual.square().sum(dim=0)
        direction = torch.where(going, residual + new / size.clamp_min(1e-200) * direction, direction)
        size = torch.where(going, new, size)
    return moved
