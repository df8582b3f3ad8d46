"""The candidate directions found so far, each with the two tests that tell a true one by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear_layer import Factors
from .assemble import independent
from .purity import examine, take_apart
from .refine import Directions
from .separate import separability

_SEPARABLE = 0.985  # of the neurons: what a true direction reaches and an unrelated mixture does not
_HOPELESS = 0.9  # an impure candidate below it is not kept
_SAME = 1e-6  # of 1 - |cos|


@dataclass(frozen=True)
class Pool:
    """Distinct candidates: directions, whether each is pure, and the share of neurons that a linear fit gets right."""

    directions: Directions
    pure: Tensor  # [K]
    separable: Tensor  # [K]

    @property
    def good(self) -> Tensor:
        """The candidates that pass both tests, `[K]`."""
        return self.pure & (self.separable >= _SEPARABLE)

    def best(self, most: int, only_good: bool = False) -> Tensor:
        """The first `most` linearly independent candidates: those that pass, then the pure, then by separability."""
        score = 4.0 * self.good + 2.0 * self.pure + self.separable + self.directions.zeros.double().mean(dim=0) / 8
        order = score.argsort(descending=True, stable=True)
        if only_good:
            order = order[self.good[order]]
        return torch.tensor(independent(self.directions.vectors, order, most), dtype=torch.long, device=order.device)

    def select(self, index: Tensor) -> Pool:
        """Those candidates, in that order."""
        return Pool(self.directions.select(index), self.pure[index], self.separable[index])

    def join(self, other: Pool) -> Pool:
        """These candidates and then the other ones."""
        return Pool(
            self.directions.join(other.directions),
            torch.cat([self.pure, other.pure]),
            torch.cat([self.separable, other.separable]),
        )


def empty(factors: Factors) -> Pool:
    """No candidates yet."""
    basis = factors.basis
    zeros = torch.zeros(len(basis), 0, dtype=torch.bool, device=basis.device)
    return Pool(Directions(basis.new_zeros(factors.rank, 0), zeros), zeros[0], basis.new_zeros(0))


def grow(pool: Pool, factors: Factors, pre_activations: Tensor, found: Directions, generator: torch.Generator) -> Pool:
    """The pool with what is new in `found`; mixtures are taken apart, and what they hold is added too."""
    new = _unknown(pool, found)
    if not len(new):
        return pool
    purity = examine(factors, new)
    pool = pool.join(Pool(new, purity.pure, separability(pre_activations, new.zeros).to(pool.separable)))
    parts = take_apart(factors, purity, generator)
    if parts is not None and len(parts := _unknown(pool, parts)):
        separable = separability(pre_activations, parts.zeros).to(pool.separable)
        pool = pool.join(Pool(parts, examine(factors, parts).pure, separable))
    return pool.select((pool.pure | (pool.separable >= _HOPELESS)).nonzero()[:, 0])


def _unknown(pool: Pool, found: Directions) -> Directions:
    alike = (found.vectors.T @ pool.directions.vectors).abs() > 1 - _SAME
    return found.select((~alike.any(dim=1)).nonzero()[:, 0])
