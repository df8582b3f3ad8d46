"""From directions to images: which B directions form the batch, their scale, the inputs, and lambda of each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..linear_layer import Factors, InputLayer, match_patterns, solve_inputs
from .refine import Directions

_INDEPENDENT = 1e-4  # QR residual above which a direction is not a combination of those before it


@dataclass(frozen=True)
class Batch:
    """B directions made whole: `columns = G^T [m, B]` with exact zeros, inputs `X [B, n]`, and how they agree."""

    directions: Directions
    columns: Tensor
    inputs: Tensor
    error: Tensor  # [B], standard deviation of one entry of X that the observed noise explains
    agree: Tensor  # [m, B], neurons whose activation for the recovered image agrees with the column's support
    votes: Tensor  # [m, B], neurons that are clear of the error bound

    @property
    def matching(self) -> Tensor:
        """The sparsity-matching coefficient lambda of each image, `[B]` in [0, 1]."""
        return self.agree.sum(dim=0) / self.votes.sum(dim=0).clamp_min(1)


def independent(vectors: Tensor, order: Tensor, most: int) -> list[int]:
    """The first `most` linearly independent columns of `[B, K]`, in the given order."""
    kept: list[int] = []
    span = vectors.new_zeros(len(vectors), 0)
    for index in order.tolist():
        residual = vectors[:, index]
        for _ in range(2):  # twice is enough for orthogonality to working precision
            residual = residual - span @ (span.T @ residual)
        size = residual.norm()
        if size > _INDEPENDENT:
            kept.append(index)
            span = torch.cat([span, (residual / size)[:, None]], dim=1)
            if len(kept) == most:
                break
    return kept


def assemble(factors: Factors, layer: InputLayer, weight_gradient: Tensor, directions: Directions) -> Batch:
    """Scale B independent directions by the bias gradient and solve for the inputs by least squares over all rows."""
    vectors = directions.vectors
    scale = torch.linalg.solve(vectors, factors.ones)
    columns = ((factors.basis @ vectors) * scale).masked_fill(directions.zeros, 0.0)
    inputs = solve_inputs(columns, weight_gradient)
    error = input_error(factors, vectors, scale, columns, inputs)
    return Batch(directions, columns, inputs, error, *match_patterns(inputs, ~directions.zeros, layer, error))


def input_error(factors: Factors, vectors: Tensor, scale: Tensor, columns: Tensor, inputs: Tensor) -> Tensor:
    """Standard deviation of one entry of each row of X, `[B]`, that the noise of the gradient explains.

    Two sources, to first order: the noise of `dL/dW` itself, and that of the columns `L q` on the right-hand side.
    """
    triangle = torch.linalg.qr(columns).R
    inverse = torch.linalg.solve_triangular(
        triangle, torch.eye(len(vectors), dtype=columns.dtype, device=columns.device), upper=True
    )
    spread = inverse.norm(dim=1)  # sqrt of the diagonal of (G G^T)^-1
    column_noise = factors.noise(vectors) * scale.abs()
    size = inputs.square().mean(dim=1).sqrt()
    return spread * (factors.sigma**2 + (column_noise * size).square().sum()).sqrt()
