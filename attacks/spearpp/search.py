"""Finds directions q in which `L q` is unusually sparse: local minimisers of a sparsity objective on the sphere.

Source: Bakarsky et al., "SPEAR++", 2025 (l1 with Riemannian Adam is the best of the pairs it compares).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.sphere import normalized, outside
from . import objectives, optimizers
from .objectives import OBJECTIVES, Sphere
from .optimizers import OPTIMIZERS

_MET = 1e-4  # of 1 - |cos|: end points as near as that round to the same direction
_BLUR = 1e-3  # of gaussian noise in a start made of rows: what is left of it where the rows leave nothing


def row_starts(basis: Tensor, count: int, avoid: Tensor | None, generator: torch.Generator) -> Tensor:
    """Unit vectors `[B, count]` as `sphere.random_starts` gives, each a random row of L made orthogonal to another one.

    A row of `L = G^T Q^-1` is orthogonal to the direction of every image that its neuron is inactive for, and what it
    shares with another row goes too: such a start is nearer to few directions than a random one to any. Rows as starts
    are from Qu, Sun and Wright, "Finding a Sparse Vector in a Subspace", 2014.
    """
    m, rank = basis.shape
    chosen = torch.randint(m, (2, count), generator=generator, device=basis.device)
    one, other = basis[chosen].float()  # [count, B] each
    tiny = torch.finfo(one.dtype).tiny
    one, other = (rows / rows.norm(dim=1, keepdim=True).clamp_min(tiny) for rows in (one, other))
    starts = (one - other * (one * other).sum(dim=1, keepdim=True)).T
    noise = torch.randn(rank, count, generator=generator, device=basis.device)
    return normalized(outside(starts + _BLUR / rank**0.5 * noise, avoid))


def minimize(
    basis: Tensor,
    starts: Tensor,
    objective: objectives.Name,
    optimizer: optimizers.Name,
    iterations: int,
    step: float,
) -> Tensor:
    """Minimise an objective of `L q` from all starts at once, in the starts' dtype.

    Args:
        basis: L `[m, B]`, whitened (`L^T L = m I`).
        starts: unit vectors `[B, N]`.
        objective: of sparsity.
        optimizer: `rtr` needs a smooth objective.
        iterations: how many steps at most.
        step: the first step's length, in radians.

    Returns:
        Unit vectors `[B, N]`.
    """
    sphere = Sphere(basis.to(starts.dtype), OBJECTIVES[objective])
    return OPTIMIZERS[optimizer](sphere, starts, iterations, step)


def merge(basis: Tensor, ends: Tensor) -> Tensor:
    """One end point of those that have met, `[B, K]` of `[B, N]`: the one with the least l1 norm of `L q`."""
    order = (basis.to(ends.dtype) @ ends).abs().sum(dim=0).argsort()
    ends = ends[:, order]
    met = (ends.T @ ends).abs() > 1 - _MET
    return ends[:, ~torch.triu(met, diagonal=1).any(dim=0)]
