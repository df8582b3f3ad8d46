"""Which recovered images are certified to be exact, from what the server sees alone.

An image is trusted when its direction is pure and its activation pattern agrees with its column's support at every
neuron that votes: then the support is separable, by the image itself. A trusted direction gives an exact image once the
other directions span the rest, unless one of those others is a mixture that hides part of this image. A mixture is zero
only where all its images are inactive, so one that has clearly more zeros outside this image's own zeros than B, which
is what a free choice in B dimensions can reach, does not hide it. The scale is only as sure as the bias gradient, which
must lie in the span of the columns.

Diana et al. (VGIA, arXiv 2604.15063) certify records otherwise: hyperplanes, which the server's queries choose, bound a
region, and a test of subspaces tells whether exactly one record is in it. Here nothing is chosen: one gradient is read.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .assemble import Batch, rescale
from .linear_layer import EXACT, EXCESS, SAFETY, LayerGradient
from .low_rank import Factors
from .purity import examine
from .refine import near_zero, tolerance
from .witness import Scales, fit_scales

_COINCIDENCE = 1.3  # times B
_FOREIGN = 2.0  # times the noise: more of dL/db outside the span of the columns is not theirs
_ROUNDING = 1e-6  # of dL/db: what float32 leaves
_QUORUM = 0.8  # of the distinct neurons must be clear of the error bound for lambda to mean anything


def trusted(factors: Factors, batch: Batch, pure: Tensor) -> Tensor:
    """The images whose direction passes its own tests, `[B]` booleans.

    Pure, lambda 1, all its zeros zero within twice the tolerance (of many, a few are beyond one), and few other entries
    that noise hides: at most twice as many as show between one and two tolerances.
    """
    vectors, zeros = batch.directions.vectors, batch.directions.zeros
    columns = (factors.basis @ vectors).abs()
    limit = tolerance(factors, vectors, columns)
    hidden = ((columns <= limit) & ~zeros).sum(dim=0)
    consistent = ~(zeros & (columns > 2 * limit)).any(dim=0) & (hidden <= 2 * near_zero(factors, vectors) + 1)
    return pure & consistent & matched(factors, batch)


def confirmed(gradient: LayerGradient, second: Factors | None, batch: Batch) -> tuple[Batch, Scales | None]:
    """The batch with the scales of the next layer where these contradict the bias gradient's; and what it says of them.

    Args:
        gradient: of the first layer.
        second: of the next one; None where none is seen, which confirms nothing.
        batch: all B directions found.
    """
    if second is None:
        return batch, None
    size = batch.inputs.norm(dim=1) / gradient.layer.size**0.5
    error = (batch.error.square() - (size * batch.scale_error).square()).clamp_min(0).sqrt()
    scales = fit_scales(gradient, second, batch.inputs, error)
    if scales is not None and scales.contradict(batch.scale_error):
        batch = rescale(gradient, batch, scales.factor, scales.error)
    return batch, scales


def certify(factors: Factors, batch: Batch, pure: Tensor, pixel_scale: Tensor) -> Tensor:
    """The images certified to round to the true 8-bit pixels, `[B]` booleans.

    Args:
        factors: of the gradient.
        batch: all B directions found.
        pure: `[B]`, the purity test of each direction.
        pixel_scale: `[C]`, pixels in [0, 1] per unit of model input.
    """
    sure = trusted(factors, batch, pure)
    if bool(sure.any()):  # a neuron that may be on either side of zero for its image is no evidence for the direction
        decided = replace(batch.directions, zeros=batch.directions.zeros & batch.votes)
        sure = sure & examine(factors, decided).pure
    return certified(factors, batch, sure, pixel_scale)


def certified(factors: Factors, batch: Batch, sure: Tensor, pixel_scale: Tensor) -> Tensor:
    """Which of the images whose direction is `sure [B]` are certified, whatever made it so; arguments as above."""
    foreign = _FOREIGN * factors.sigma + _ROUNDING * float(batch.columns.sum(dim=1).square().mean().sqrt())
    if factors.bias_residual > foreign:
        return torch.zeros_like(sure)  # the bias gradient is not of these images, so no scale is sure
    zeros = batch.directions.zeros
    clear = torch.ones_like(sure)
    for j in (~sure).nonzero()[:, 0].tolist():
        clear &= factors.distinct(zeros[:, j, None] & ~zeros) > _COINCIDENCE * factors.rank
    return sure & clear & precise(batch, pixel_scale)


def precise(batch: Batch, pixel_scale: Tensor) -> Tensor:
    """The images whose predicted error leaves every pixel its 8-bit value, `[B]`: a wrong scale moves extremes most."""
    extra = batch.inputs.abs().amax(dim=1).square() - batch.inputs.square().mean(dim=1)
    worst = (batch.error.square() + extra * batch.scale_error.square()).sqrt()
    certain: Tensor = SAFETY * worst * pixel_scale.max() < EXACT
    return certain


def matched(factors: Factors, batch: Batch) -> Tensor:
    """The images of lambda 1, by enough votes of distinct neurons, `[B]` booleans."""
    enough = max(_QUORUM * factors.distinct_neurons, factors.rank + EXCESS)
    return (batch.matching == 1) & (factors.distinct(batch.votes) >= enough)
