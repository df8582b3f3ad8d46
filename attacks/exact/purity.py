"""Tells a true direction from a mixture of near-duplicate images.

For two similar images the search may end on `a q_i + c q_j`, which is zero where both images are inactive. On its
zero rows L then has nullity 2, or nullity 1 carried by a row or two that chance made zero and that hold a dimension
alone (leverage near 1, or a half each), where a true direction of a generic batch has nullity 1 by all its rows
together. Copies of one neuron (`neurons.py`) count as one row here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .chunks import chunks
from .low_rank import Factors
from .refine import Directions, smallest, tolerance

_LEVERAGE = 0.49  # one of two rows that hold a dimension between them is above it
_DEPTH = 6  # null vectors looked for


@dataclass(frozen=True)
class Purity:
    """Whether each direction is pure, and what its robust zero rows say of it."""

    pure: Tensor  # [K]
    nullity: Tensor  # [K], the dimension of their null space, counted up to 6
    rows: Tensor  # [m, K], the zero rows without those that hold a dimension alone or in pairs
    spread: Tensor  # [K], how far the noise may have moved each unit direction

    def select(self, index: Tensor) -> Purity:
        """Those candidates' tests, in that order."""
        return Purity(self.pure[index], self.nullity[index], self.rows[:, index], self.spread[index])


def examine(factors: Factors, directions: Directions) -> Purity:
    """Find the null space of L on each direction's zero rows, rows that hold a dimension alone or in pairs left out.

    A direction is pure when that space has dimension 1, or when at least two distinct neurons more than the `k - 1`
    that any direction of a k-dimensional space can zero agree on it, beyond what chance puts within the tolerance.
    """
    rows = directions.zeros.clone()
    spaces, values, nullity = _null_spaces(factors, rows, directions.vectors)
    todo = (nullity == 1).nonzero()[:, 0]  # a space of more dimensions only grows when rows are left out
    for _ in range(4):  # leaving rows out may raise the leverage of others
        lone = _lone(factors, rows[:, todo], spaces[todo], values[todo])
        hit = lone.any(dim=0)
        rows[:, todo] &= ~lone
        todo = todo[hit]
        if not len(todo):
            break
        spaces[todo], values[todo], nullity[todo] = _null_spaces(factors, rows[:, todo], directions.vectors[:, todo])
        todo = todo[nullity[todo] == 1]
    pure = nullity == 1
    smaller = (~pure & (rows != directions.zeros).any(dim=0)).nonzero()[:, 0]
    for k, dimension in torch.stack([smaller, nullity[smaller]], dim=1).tolist():
        only = torch.arange(k, k + 1, device=rows.device)
        pure[k] = _agreement(factors, directions.select(only), spaces[k, :, :dimension]) >= 2
    stiffness = (values[:, 1:] * rows.sum(dim=0)[:, None] ** 0.5).clamp_min(1e-300)
    spread = factors.noise(directions.vectors) * stiffness.pow(-2).sum(dim=1).sqrt()
    return Purity(pure, nullity, rows, spread)


def _null_spaces(factors: Factors, rows: Tensor, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The smallest singular vectors on the rows `[K, B, 6]`, their values `[K, 6]`, how many of them noise explains."""
    depth = min(_DEPTH, factors.rank)
    spaces, values = smallest(factors.once(), rows, start, depth)
    limits = torch.stack([limit(factors, spaces[:, :, k].T) for k in range(depth)], dim=1)
    return spaces, values, (values <= limits).cumprod(dim=1).sum(dim=1).clamp_min(1)


def _agreement(factors: Factors, direction: Directions, space: Tensor) -> Tensor:
    """How many distinct neurons agree on a direction of a null space, beyond the choice of the direction and chance."""
    live = (factors.basis @ space).norm(dim=1, keepdim=True) > limit(factors, space).max()
    column = (factors.basis @ direction.vectors).abs()
    zero = limit(factors, direction.vectors)
    near = (live & (column > zero) & (column <= 10 * zero)).sum() / 9
    agreement: Tensor = factors.distinct(live & direction.zeros)[0] - (space.shape[1] - 1) - 3 * near
    return agreement


def limit(factors: Factors, vectors: Tensor) -> Tensor:
    """Below which an entry of `L q` of each vector counts as zero, `[K]`."""
    return tolerance(factors, vectors, factors.basis @ vectors)


def _lone(factors: Factors, rows: Tensor, spaces: Tensor, values: Tensor) -> Tensor:
    """The rows that hold a dimension alone or in pairs, `[m, K]` booleans.

    A dimension that so few rows hold has a small singular value, so their leverage is looked for in the space of the
    smallest singular vectors after the null vector; there a row of a generic batch has next to none.
    """
    lone = torch.zeros_like(rows)
    energy = values.square() * rows.sum(dim=0)[:, None]  # [K, 6]
    basis = factors.once().basis
    for part in chunks(rows.shape[1], 8 * len(rows) * spaces.shape[2], rows.device):
        held = (basis @ spaces[part, :, 1:]).square() / energy[part, None, 1:].clamp_min(1e-300)  # [k, m, 5]
        leverage = factors.by_neuron(held.sum(dim=2).T * rows[:, part])  # of copies, which are zero together, the sum
        lone[:, part] = rows[:, part] & (leverage[factors.neurons] > _LEVERAGE)
    return lone
