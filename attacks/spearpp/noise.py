"""Corrects zero sets by what linear separability, and later the recovered images, say of them.

Under noise a zero set holds a few neurons that are active with a small gradient, and each one tilts its direction. They
show where the support is no activation pattern: the support of a true column is where `w_j . x + b_j > 0` for an x in
the span of the rows of `L^+ dL/dW`, so it is linearly separable in B unknowns; for m > 4 B the support of an unrelated
mixture is not. Once the batch is complete, the image's own activations tell which neurons they are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..exact.assemble import Batch
from ..exact.low_rank import Factors
from ..exact.refine import Directions, distinct, near_zero, smallest, tolerance, zero_rows

_PASSES = 5
_STEPS, _RATE = 200, 0.3  # of the linear fit
_SEPARABLE = 0.985  # share of neurons from which a fit is believed
_VISIBLE = 1e-5  # of the largest entry: below it noise hides nothing
_CREDIBLE = 0.8  # share of agreeing neurons from which an image's activations are believed


def separate(pre_activations: Tensor, zeros: Tensor) -> tuple[Tensor, Tensor]:
    """Fit each support by a linear function of the row space.

    Args:
        pre_activations: F `[m, B]`.
        zeros: `[m, K]` booleans, where the columns are zero.

    Returns:
        The share of neurons on the right side, `[K]`, and the side the fit puts each on, `[m, K]`, True for active.
    """
    whitened = torch.linalg.qr(pre_activations).Q.float() * len(pre_activations) ** 0.5
    transposed = whitened.T.contiguous() / len(whitened)
    target = 1.0 - 2.0 * zeros.float()  # +1 where active
    fit = transposed @ target
    fit /= fit.norm(dim=0).clamp_min(1e-12)
    momentum, second = torch.zeros_like(fit), torch.zeros_like(fit)
    best, share = fit, torch.zeros(zeros.shape[1], device=zeros.device)
    for step in range(1, _STEPS + 1):  # logistic loss by Adam: its margin grows on the rows still misplaced
        margin = target * (whitened @ fit)
        right = (margin > 0).float().mean(dim=0)
        best = torch.where(right > share, fit, best)
        share = torch.maximum(share, right)
        gradient = -transposed @ (target * torch.sigmoid(-margin))
        momentum = 0.9 * momentum + 0.1 * gradient
        second = 0.99 * second + 0.01 * gradient.square()
        rate = _RATE / (1 - 0.9**step) * (1 - 0.99**step) ** 0.5
        fit = fit - rate * momentum / (second.sqrt() + 1e-8)
    return share.double(), whitened @ best > 0


def drop_hidden(factors: Factors, pre_activations: Tensor, found: Directions) -> Directions:
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


def correct_by_images(factors: Factors, batch: Batch, assemble: Callable[[Directions], Batch]) -> tuple[Batch, bool]:
    """Let the activations of credible images decide on small entries, as long as that helps; and whether it did."""
    corrected = False
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
        batch, corrected = trial, True
    return batch, corrected
