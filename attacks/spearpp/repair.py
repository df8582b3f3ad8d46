"""Corrects zero sets by what the recovered images say of them.

Under noise a zero set holds a few neurons that are active with a small gradient, and each one tilts its direction. Once
the batch is complete, the image's own activations tell which they are.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..linear_layer import Factors
from .assemble import Batch
from .refine import Directions, distinct, near_zero, smallest, tolerance, zero_rows
from .separate import separate

_PASSES = 5
_SEPARABLE = 0.85  # share of neurons from which a fit is believed
_VISIBLE = 1e-5  # of the largest entry: below it noise hides nothing
_CREDIBLE = 0.8  # share of agreeing neurons from which an image's activations are believed


def unhide(factors: Factors, pre_activations: Tensor, found: Directions) -> Directions:
    """Leave out of each zero set the neurons that a linear fit of its support puts on the active side.

    Only where the noise can hide entries: else a zero is a zero.
    """
    noisy = (4 * factors.noise(found.vectors) > _VISIBLE * (factors.basis @ found.vectors).abs().amax(dim=0)).nonzero()
    vectors, zeros = found.vectors.clone(), found.zeros.clone()
    noisy = noisy[:, 0]
    for _ in range(_PASSES):
        if not len(noisy):
            break
        share, active = separate(pre_activations, zeros[:, noisy])
        fewer = zero_rows(factors, vectors[:, noisy]) & ~active
        changed = (fewer != zeros[:, noisy]).any(dim=0) & (share >= _SEPARABLE) & (fewer.sum(dim=0) >= factors.rank)
        noisy, fewer = noisy[changed], fewer[:, changed]
        vectors[:, noisy] = smallest(factors, fewer, vectors[:, noisy])[0][:, :, 0].T
        zeros[:, noisy] = fewer
    return distinct(Directions(vectors, zeros))


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
