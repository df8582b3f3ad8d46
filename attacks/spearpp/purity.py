"""Tells a true direction from a mixture of near-duplicate images, and takes mixtures apart.

For two similar images the search may end on `a q_i + c q_j`, which is zero where both images are inactive. On its
zero rows L then has nullity 2, or nullity 1 carried by a few rows that each hold a dimension alone (leverage near 1),
where a true direction of a generic batch has nullity 1 by all its rows together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear_layer import Factors
from .refine import Directions, refine, smallest, tolerance

_LEVERAGE = 0.9  # a zero row above it holds a dimension nearly alone
_DEPTH = 6  # null vectors looked for
_DRAWS = 3000  # row sets sampled inside a null space of three or more dimensions
_KEPT = 6  # directions kept of one null space


@dataclass(frozen=True)
class Purity:
    """Whether each direction is pure, and what its robust zero rows say of it."""

    pure: Tensor  # [K]
    nullity: Tensor  # [K], the dimension of their null space
    spaces: Tensor  # [K, B, 6], their smallest singular vectors
    spread: Tensor  # [K], how far the noise may have moved each unit direction


def examine(factors: Factors, directions: Directions) -> Purity:
    """Find the null space of L on each direction's zero rows, rows of leverage near 1 left out.

    A direction is pure when that space has dimension 1, or when at least two rows more than the `k - 1` that any
    direction of a k-dimensional space can zero agree on it, beyond those that chance puts within the tolerance.
    """
    rows = directions.zeros.clone()
    depth = min(_DEPTH, factors.rank)
    todo = torch.arange(len(directions), device=rows.device)
    for _ in range(4):  # leaving rows out may raise the leverage of others
        lone = _leverage(factors, rows[:, todo], directions.vectors[:, todo]) > _LEVERAGE
        hit = lone.any(dim=0)
        rows[:, todo] &= ~lone
        todo = todo[hit]
        if not len(todo):
            break
    spaces, values = smallest(factors, rows, directions.vectors, depth)
    limits = torch.stack([_limit(factors, spaces[:, :, k].T) for k in range(depth)], dim=1)
    nullity = (values <= limits).cumprod(dim=1).sum(dim=1).clamp_min(1)  # a null vector is one that noise explains
    pure = nullity == 1
    for k in (~pure).nonzero()[:, 0].tolist():
        pure[k] = _agreement(factors, directions.select(torch.tensor([k])), spaces[k, :, : int(nullity[k])]) >= 2
    stiffness = (values[:, 1:] * rows.sum(dim=0)[:, None] ** 0.5).clamp_min(1e-300)
    spread = factors.noise(directions.vectors) * stiffness.pow(-2).sum(dim=1).sqrt()
    return Purity(pure, nullity, spaces, spread)


def _agreement(factors: Factors, direction: Directions, space: Tensor) -> float:
    """How many zero rows agree on a direction of a null space, beyond the choice of the direction and chance."""
    live = (factors.basis @ space).norm(dim=1) > _limit(factors, space).max()
    column = (factors.basis @ direction.vectors)[:, 0].abs()
    limit = _limit(factors, direction.vectors)
    near = (live & (column > limit) & (column <= 10 * limit)).sum() / 9
    return float((live & direction.zeros[:, 0]).sum() - (space.shape[1] - 1) - 3 * near)


def _limit(factors: Factors, vectors: Tensor) -> Tensor:
    return tolerance(factors, vectors, factors.basis @ vectors)


def _leverage(factors: Factors, rows: Tensor, vectors: Tensor) -> Tensor:
    """The leverage of each zero row in L restricted to the zero rows, `[m, K]`; zero on other rows."""
    basis, rank = factors.basis, factors.rank
    leverage = torch.zeros(rows.shape, dtype=basis.dtype, device=basis.device)
    eye = torch.eye(rank, dtype=basis.dtype, device=basis.device)
    for k in range(rows.shape[1]):
        chosen = basis[rows[:, k]]
        gram = chosen.T @ chosen
        trace = gram.diagonal().sum().clamp_min(1e-300)
        filled = gram + trace * torch.outer(vectors[:, k], vectors[:, k]) + 1e-13 * trace * eye
        factor = torch.linalg.cholesky_ex(filled)[0]
        leverage[rows[:, k], k] = torch.linalg.solve_triangular(factor, chosen.T, upper=False).square().sum(dim=0)
    return leverage


def take_apart(factors: Factors, spaces: Tensor, nullity: Tensor, generator: torch.Generator) -> Directions | None:
    """The directions inside the null spaces of mixtures that are zero on the most further rows, refined.

    Args:
        factors: of the gradient.
        spaces: `[K, B, 6]`, whose first columns span the null spaces.
        nullity: `[K]`, how many.
        generator: draws row sets.
    """
    different: list[Tensor] = []
    for space, dimension in zip(spaces, nullity.tolist(), strict=True):
        if not any(_same(space[:, :dimension], other) for other in different):
            different.append(space[:, :dimension])
    inside = [found for space in different if (found := _inside(factors, space, generator)) is not None]
    return refine(factors, torch.cat(inside, dim=1)) if inside else None


def _same(space: Tensor, other: Tensor) -> bool:
    return space.shape == other.shape and bool((other.T @ space).norm() ** 2 > space.shape[1] - 1e-6)


def _inside(factors: Factors, space: Tensor, generator: torch.Generator) -> Tensor | None:
    """Directions of one null space `[B, k]` on which many rows agree: `[B, found]`."""
    rows = factors.basis @ space  # [m, k]
    live = rows[rows.norm(dim=1) > 10 * _limit(factors, space).max()]
    k = space.shape[1]
    if len(live) < k:
        return None
    if k == 2:  # every row excludes one direction of the plane
        drawn = torch.stack([-live[:, 1], live[:, 0]], dim=1)
    else:
        pick = torch.randint(len(live), (_DRAWS, k - 1), generator=generator, device=live.device)
        drawn = torch.linalg.qr(live[pick].mT, mode="complete").Q[:, :, -1]
    drawn = drawn / drawn.norm(dim=1, keepdim=True)
    vectors = space @ drawn.T
    columns = live @ drawn.T
    zeros = columns.abs() <= _limit(factors, vectors)
    votes = zeros.sum(dim=0)
    eligible = votes >= k  # k - 1 rows vote for any direction drawn from them
    chosen: list[int] = []
    while len(chosen) < _KEPT and bool(eligible.any()):
        index = int(torch.where(eligible, votes, -1).argmax())
        chosen.append(index)
        # What is zero on a part of the same rows holds the same images and more: all mixtures of a plane look alike.
        eligible &= (zeros & zeros[:, index, None]).sum(dim=0) < votes
    return vectors[:, chosen] if chosen else None
