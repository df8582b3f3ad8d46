"""Corrects zero sets by what the recovered images say of them.

Under noise a zero set holds a few neurons that are active with a small gradient, and each one tilts its direction. Once
the batch is complete, the image's own activations tell which they are.
"""

from __future__ import annotations

from collections.abc import Callable

from ..linear_layer import Factors
from .assemble import Batch
from .refine import Directions, smallest

_PASSES = 5
_CREDIBLE = 0.9  # lambda from which an image's activations are believed


def repair(factors: Factors, batch: Batch, assemble: Callable[[Directions], Batch]) -> tuple[Batch, bool]:
    """Let the activations of credible images decide their zero sets, as long as lambda rises; whether it did."""
    repaired = False
    for _ in range(_PASSES):
        wrong = batch.votes & ~batch.agree & (batch.matching >= _CREDIBLE)
        changed = wrong.any(dim=0).nonzero()[:, 0]
        if not len(changed):
            break
        zeros = batch.directions.zeros ^ wrong
        vectors = batch.directions.vectors.clone()
        vectors[:, changed] = smallest(factors, zeros[:, changed], vectors[:, changed])[0][:, :, 0].T
        trial = assemble(Directions(vectors, zeros))
        if trial.matching.mean() <= batch.matching.mean():
            break
        batch, repaired = trial, True
    return batch, repaired
