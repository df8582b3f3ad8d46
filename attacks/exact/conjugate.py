"""Conjugate gradients for many right-hand sides at once, of matrices that are known by their products alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_ASKED = 8  # steps after which it is asked which columns still move
_FLAT = 1e-6  # curvature along a unit vector that is none

Products = Callable[[Tensor], Tensor]


def conjugate_gradients(
    normal: Products,
    right: Tensor,
    steps: int,
    end: float | Tensor,
    *,
    flat: float = _FLAT,
    narrow: Callable[[Tensor], Products] | None = None,
) -> Tensor:
    """x of `N x = right`, all columns `[B, K]` at once; one stops where its residual is below `end`, or N is flat.

    Args:
        normal: products with N, which may be another matrix for each column.
        right: the right-hand sides.
        steps: at most.
        end: of all columns, or of each `[K]`.
        flat: the curvature along a unit vector that is none.
        narrow: gives the products of some columns alone. It is asked whenever no more than half of them still move, so
            that those which are done cost no more products.
    """
    whole = torch.zeros_like(right)
    columns = torch.arange(right.shape[1], device=right.device)
    moved, residual, direction = whole.clone(), right, right
    size = residual.square().sum(dim=0)
    end = end + torch.zeros_like(size)
    for count in range(steps):
        image = normal(direction)
        curvature = (direction * image).sum(dim=0)
        going = (size.sqrt() > end) & (curvature > flat * direction.square().sum(dim=0))
        if count % _ASKED == 0:  # not in every step: a device waits for the answer
            left = int(going.sum())
            if not left:
                break
            if narrow and 2 * left <= len(going):
                whole[:, columns] = moved
                chosen = going.nonzero()[:, 0]
                columns, normal = columns[chosen], narrow(columns[chosen])
                moved, residual, direction, image = (each[:, chosen] for each in (moved, residual, direction, image))
                size, end, curvature, going = (each[chosen] for each in (size, end, curvature, going))
        step = torch.where(going, size / curvature, 0.0)
        moved = moved + step * direction
        residual = residual - step * image
        new = residual.square().sum(dim=0)
        direction = torch.where(going, residual + new / size.clamp_min(1e-200) * direction, direction)
        size = torch.where(going, new, size)
    whole[:, columns] = moved
    return whole
