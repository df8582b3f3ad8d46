"""Corrects zero sets by what the recovered images say of them.

Under noise a zero set holds a few neurons that are active with a small gradient, and each one tilts its direction. Once
the batch is complete, the image's own activations tell which they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..exact.assemble import Batch
from ..exact.low_rank import Factors
from ..exact.refine import Directions, distinct, near_zero, smallest, tolerance, zero_rows
from .separate import separate

_PASSES = 5
_SEPARABLE = 0.985  # share of neurons from which a fit is believed
_VISIBLE = 1e-5  # of the largest entry: below it noise hides nothing
_CREDIBLE = 0.8  # share of agreeing neurons from which an image's activations are believed


def unhide(factors: Factors, pre_activations: Tensor, found: Directions) -> Directions:
    """Leave out of each zero set the neurons that a linear fit of its support puts on the active side.

    Only where the noise can hide entries, else a zero is a zero; and only where it makes the support separable.
    """
    hidden = 4 * factors.noise(found.vectors) > _VISIBLE * (factors.basis @ found.vectors).abs().amax(dim=0)
    noisy = hidden.nonzero()[:, 0]
    if not len(noisy):
        return found
    vectors, zeros = found.vectors[:, noisy], found.zeros[:, noisy]
    for _ in range(_PASSES):
        _, active = separate(pre_activations, zeros)
        zeros = zero_rows(factors, vectors) & ~active
        vectors = smallest(factors, zeros, vectors)[0][:, :, 0].T
    usable = zeros.sum(dim=0) >= 1.3 * factors.rank
    better = usable & (separate(pre_activations, zeros)[0] >= _SEPARABLE)
    kept = torch.ones_like(hidden)
    kept[noisy[better]] = False
    unhidden = Directions(vectors[:, usable], zeros[:, usable])
    return distinct(found.select(kept.nonzero()[:, 0]).join(unhidden))


def repair(factors: Factors, batch: Batch, assemble: Callable[[Directions], Batch]) -> tuple[Batch, bool]:
    """Let the activations of credible images decide on small entries, as long as that helps; and whether it did."""
    repaired = False
    for _ in range(_PASSES):
        columns = factors.basis @ batch.directions.vectors
        small = columns.abs() <= 2 * tolerance(factors, batch.directions.vectors, columns)
        wrong = small & batch.votes & ~batch.agree & (batch.agreement >= _CREDIBLE)
        wrong &= wrong.sum(dim=0) <= 2 * near_zero(factors, batch.directions.vectors) + 2  # more is no accident
        changed = wrong.any(dim=0).nonzero()[:, 0]
        if not len(changed):
            break
        zeros = batch.directions.zeros ^ wrong
        vectors = batch.directions.vectors.clone()
        vectors[:, changed] = smallest(factors, zeros[:, changed], vectors[:, changed])[0][:, :, 0].T
        trial = assemble(Directions(vectors, zeros))
        if trial.agreement.mean() <= batch.agreement.mean():
            break
        batch, repaired = trial, True
    return batch, repaired
