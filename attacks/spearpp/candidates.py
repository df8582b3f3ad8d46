"""The candidate directions found so far, each with the two tests that tell a true one by itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..exact.low_rank import Factors
from ..exact.purity import Purity, examine
from ..exact.refine import Directions, duplicates, near_zero, no_directions
from ..exact.select import independent
from .mixtures import take_apart
from .noise import drop_hidden, separate

_SEPARABLE = 0.985  # of the neurons: what a true direction reaches and an unrelated mixture does not
_HIDDEN = 0.03  # of the neurons: small entries that noise may hide among the zeros and that no fit can get right
_HOPELESS = 0.9  # an impure candidate below it is not kept
_MOVED = 8.0  # standard deviations within which two directions count as one
_FARTHEST = 0.1  # directions further apart than this are two, whatever the noise


@dataclass(frozen=True)
class Candidates:
    """Distinct candidates: directions, whether each is pure, and the share of neurons that a linear fit gets right."""

    directions: Directions
    pure: Tensor  # [K]
    separable: Tensor  # [K]
    near: Tensor  # [K], share of entries just outside the zero tolerance: what noise hides inside it, and mixtures show
    spread: Tensor  # [K], how far the noise may have moved each
    penalty: Tensor  # [K], how often in a row a batch of B showed it untrusted; -4 where the last one trusted it

    @property
    def good(self) -> Tensor:
        """The candidates that pass both tests, `[K]`."""
        return self.pure & (self.separable >= _SEPARABLE - (2 * self.near).clamp_max(_HIDDEN))

    def ranked(self, only_good: bool = False) -> Tensor:
        """The candidates, best first: by trust, by the tests they pass, by separability and zeros."""
        tests = 4.0 * self.good + 2.0 * self.pure + self.separable
        score = tests - self.near - self.penalty + self.directions.zeros.double().mean(dim=0) / 8
        order = score.argsort(descending=True, stable=True)
        return order[self.good[order]] if only_good else order

    def independent(self, order: Tensor, most: int) -> list[int]:
        """The first `most` linearly independent candidates in that order."""
        return independent(self.directions.vectors, order, most, self.within)

    @property
    def within(self) -> Tensor:
        """How far from the span of others each still counts as one of theirs, `[K]`."""
        return (_MOVED * self.spread).clamp_max(_FARTHEST)

    def select(self, index: Tensor) -> Candidates:
        """Those candidates, in that order."""
        rest = (getattr(self, name)[index] for name in _TESTS)
        return Candidates(self.directions.select(index), *rest)

    def without(self, index: list[int]) -> Candidates:
        """The other candidates."""
        kept = torch.ones_like(self.pure)
        kept[index] = False
        return self.select(kept.nonzero()[:, 0])

    def join(self, other: Candidates) -> Candidates:
        """These candidates and then the other ones."""
        rest = (torch.cat([getattr(self, name), getattr(other, name)]) for name in _TESTS)
        return Candidates(self.directions.join(other.directions), *rest)


_TESTS = ("pure", "separable", "near", "spread", "penalty")


def no_candidates(factors: Factors) -> Candidates:
    """None yet."""
    nothing = factors.basis.new_zeros(0)
    return Candidates(no_directions(factors), nothing.bool(), nothing, nothing, nothing, nothing)


def grow(
    known: Candidates, factors: Factors, pre_activations: Tensor, found: Directions, splitting: bool
) -> Candidates:
    """Those known and what is new in `found`; with `splitting` also what the mixtures hold, taken apart."""
    new = _unknown(known, drop_hidden(factors, pre_activations, found))
    if not len(new):
        return known
    purity = examine(factors, new)
    fresh = tested(factors, pre_activations, new, purity)
    known = known.join(fresh)
    if splitting:
        mixed = torch.where(fresh.pure, -1.0, fresh.separable).argsort(descending=True)
        mixed = mixed[~fresh.pure[mixed]]
        good = known.directions.select(known.good.nonzero()[:, 0])
        parts = take_apart(factors, new.select(mixed), purity.select(mixed), good)
        if parts is not None and len(parts := _unknown(known, drop_hidden(factors, pre_activations, parts))):
            known = known.join(tested(factors, pre_activations, parts, examine(factors, parts)))
    return known.select((known.pure | (known.separable >= _HOPELESS)).nonzero()[:, 0])


def tested(factors: Factors, pre_activations: Tensor, found: Directions, purity: Purity) -> Candidates:
    """Candidates with their tests."""
    separable, _ = separate(pre_activations, found.zeros)
    near = near_zero(factors, found.vectors).double() / len(pre_activations)
    return Candidates(found, purity.pure, separable, near, purity.spread, torch.zeros_like(separable))


def _unknown(known: Candidates, found: Directions) -> Directions:
    return found.select((~duplicates(found, known.directions).any(dim=1)).nonzero()[:, 0])
