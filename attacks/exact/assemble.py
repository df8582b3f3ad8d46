"""From directions to images: which B directions form the batch, their scale, the inputs, and lambda of each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .linear_layer import LayerGradient, match_patterns, solve_inputs
from .refine import Directions


@dataclass(frozen=True)
class Batch:
    """B directions made whole: `columns = G^T [m, B]` with exact zeros, inputs `X [B, n]`, and how they agree."""

    directions: Directions
    columns: Tensor
    inputs: Tensor
    scale: Tensor  # [B], of unit directions: `columns = L q * scale`
    error: Tensor  # [B], standard deviation of one entry of X that the observed noise explains
    scale_error: Tensor  # [B], relative standard deviation of each image's scale, part of `error`
    agree: Tensor  # [m, B], neurons whose activation for the recovered image agrees with the column's support
    votes: Tensor  # [m, B], neurons that are clear of the error bound

    @property
    def matching(self) -> Tensor:
        """The sparsity-matching coefficient lambda of each image, `[B]` in [0, 1]."""
        return self.agree.sum(dim=0) / self.votes.sum(dim=0).clamp_min(1)

    @property
    def agreement(self) -> Tensor:
        """The share of all neurons that vote and agree, `[B]`: lambda, lowered by what the error bound leaves open."""
        return self.agree.double().mean(dim=0)

    @property
    def matches(self) -> bool:
        """Whether lambda of the whole batch is 1."""
        return bool((self.matching == 1).all())


def assemble(gradient: LayerGradient, directions: Directions) -> Batch:
    """Least squares over all rows: the inputs of B independent directions, and their scale from the bias gradient."""
    unscaled = (gradient.factors.basis @ directions.vectors).masked_fill(directions.zeros, 0.0)
    inputs, ones = solve_inputs(unscaled, gradient.weight, gradient.bias[:, None])
    scale = ones[:, 0]
    return _checked(gradient, directions, unscaled * scale, inputs / ones, scale, None)


def rescale(gradient: LayerGradient, batch: Batch, by: Tensor, scale_error: Tensor) -> Batch:
    """The batch with each image's inputs multiplied by `by [B]`, its scale known to `scale_error [B]`, relatively."""
    inputs, columns = batch.inputs * by[:, None], batch.columns / by
    return _checked(gradient, batch.directions, columns, inputs, batch.scale / by, scale_error)


def _checked(
    gradient: LayerGradient,
    directions: Directions,
    columns: Tensor,
    inputs: Tensor,
    scale: Tensor,
    scale_error: Tensor | None,
) -> Batch:
    """With the error that the observed noise explains, to first order, and the agreement of the patterns."""
    factors, layer = gradient.factors, gradient.layer
    triangle = torch.linalg.qr(columns).R
    inverse = torch.linalg.inv_ex(triangle).inverse
    spread = inverse.norm(dim=1)  # sqrt of the diagonal of (G G^T)^-1
    column_noise = factors.noise(directions.vectors) * scale.abs()  # of L q on the right-hand side
    size = inputs.norm(dim=1) / layer.size**0.5
    error = spread * (factors.sigma**2 + (column_noise * size).square().sum()).sqrt()
    scale_error = spread * factors.sigma if scale_error is None else scale_error
    agree, votes = match_patterns(inputs, ~directions.zeros, layer, error, scale_error)
    error = (error.square() + (size * scale_error).square()).sqrt()
    return Batch(directions, columns, inputs, scale, error, scale_error, agree, votes)
