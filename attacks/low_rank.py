"""The low rank of a linear layer's gradient: rank and noise read off its singular values, and its factors.

The gradient of a batch of B is a sum of B outer products, so it has rank B at most; what lies outside is rounding, or
noise that was added.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

_GAP = 2.0  # from one singular value to the next: what rounding noise does not show by itself (1.3 at most, measured)
_STORED = 0.2  # of the spacing of floating-point numbers: the standard deviation of rounding to the nearest of them
_SPARE, _ITERATIONS = 8, 8  # columns beside the rank, and steps, of a subspace iteration
_DEAD = 1e-6  # of the largest row of L: below it a neuron has no gradient


@dataclass(frozen=True)
class Factors:
    """The low-rank factors of a linear layer's gradient, in float64."""

    basis: Tensor  # L [m, B]: sqrt(m) times the left singular vectors
    inputs: Tensor  # L^+ dL/dW [B, n]: what Q X is
    ones: Tensor  # L^+ dL/db [B]: what Q 1 is
    singular_values: Tensor  # [B]
    sigma: float  # noise of one entry of dL/dW, read off the energy outside the leading singular values
    gap: float  # the last kept singular value over the first dropped one
    bias_residual: float  # root mean square of what dL/db has outside the span of L, where it should have noise alone
    neurons: Tensor  # [m], the number of the distinct neuron that each row is of, see `neurons.py`

    @property
    def rank(self) -> int:
        return self.basis.shape[1]

    @property
    def distinct_neurons(self) -> int:
        """How many neurons there are, copies not counted."""
        return int(self.neurons.max()) + 1

    def distinct(self, rows: Tensor) -> Tensor:
        """How many distinct neurons have one of the rows `[m, K]` at least: `[K]`."""
        return (self.by_neuron(rows.double()) > 0).sum(dim=0)

    def once(self) -> Factors:
        """The same with each row of L divided by the square root of how many copies it has, so that they sum to one."""
        weights = torch.bincount(self.neurons)[self.neurons].to(self.basis.dtype).rsqrt()
        return replace(self, basis=self.basis * weights[:, None])

    def by_neuron(self, values: Tensor) -> Tensor:
        """Values `[m, K]` summed over the copies of each distinct neuron."""
        return values.new_zeros(self.distinct_neurons, values.shape[1]).index_add_(0, self.neurons, values)

    def noise(self, directions: Tensor) -> Tensor:
        """Standard deviation of the entries of `L q` for unit directions q, the columns of `[B, K]`: `[K]`."""
        scale = len(self.basis) ** 0.5 * self.sigma
        noise: Tensor = scale * (directions / self.singular_values[:, None]).norm(dim=0)
        return noise

    def live(self) -> Tensor:
        """The neurons that fired for some image: whose row of L is more than noise, `[m]` booleans."""
        rows = self.basis.norm(dim=1)
        noise = len(rows) ** 0.5 * self.sigma * float(self.singular_values.pow(-2).sum() ** 0.5)
        live: Tensor = rows > 3 * noise + _DEAD * rows.max()
        return live


@dataclass
class _Sketch:
    """A randomised SVD that grows until the noise floor shows."""

    matrix: Tensor  # [m, n] float64
    generator: torch.Generator
    range: Tensor = field(init=False)  # orthonormal [m, k]

    def __post_init__(self) -> None:
        self.range = self.matrix.new_zeros(len(self.matrix), 0)

    def grow(self, columns: int) -> None:
        """Add columns to the range, with two power iterations so that a slowly falling spectrum is caught."""
        probe = torch.randn(
            self.matrix.shape[1], columns, generator=self.generator, device=self.matrix.device, dtype=torch.float64
        )
        block = self.matrix @ probe
        for _ in range(3):
            block = torch.linalg.qr(self._outside(block)).Q
            block = self.matrix @ (self.matrix.T @ block)
        block = torch.linalg.qr(self._outside(block)).Q
        self.range = torch.linalg.qr(torch.cat([self.range, block], dim=1)).Q

    def _outside(self, block: Tensor) -> Tensor:
        return block - self.range @ (self.range.T @ block)


def factorize(weight_gradient: Tensor, bias_gradient: Tensor, generator: torch.Generator) -> Factors | None:
    """Rank, noise level and factors of a linear layer's gradient; the batch size is read off the singular values.

    Args:
        weight_gradient: `dL/dW [m, n]`.
        bias_gradient: `dL/db [m]`.
        generator: for the randomised SVD, on the gradient's device.

    Returns:
        The factors, no neuron taken for a copy of another, or None when no singular value stands clear of the noise or
        none of them is noise (no rank gap).
    """
    eps = torch.finfo(weight_gradient.dtype).eps
    matrix = weight_gradient.double()
    limit = min(matrix.shape)
    entry = float(matrix.square().mean().sqrt())
    if entry == 0.0:
        return None
    sketch = _Sketch(matrix, generator)
    while True:
        sketch.grow(min(max(32, sketch.range.shape[1]), limit - sketch.range.shape[1]))
        inner = sketch.range.T @ matrix
        left, values, right = torch.linalg.svd(inner, full_matrices=False)
        rank, sigma = _rank(matrix - sketch.range @ inner, values, entry, eps)
        if rank < len(values) - 4 or len(values) == limit:
            break
    if rank in (0, limit):
        return None
    basis = len(matrix) ** 0.5 * (sketch.range @ left[:, :rank])
    ones = basis.T @ bias_gradient.double() / len(matrix)
    return Factors(
        basis=basis,
        inputs=values[:rank, None] * right[:rank] / len(matrix) ** 0.5,
        ones=ones,
        singular_values=values[:rank],
        sigma=sigma,
        gap=float(values[rank - 1] / values[rank].clamp_min(torch.finfo(torch.float64).tiny)),
        bias_residual=float((bias_gradient - basis @ ones).norm()) / max(len(matrix) - rank, 1) ** 0.5,
        neurons=torch.arange(len(matrix), device=matrix.device),
    )


def _rank(residual: Tensor, values: Tensor, entry: float, eps: float) -> tuple[int, float]:
    """How many of the singular values are signal, and the noise of one entry.

    White noise of an m x n matrix has no singular value above `sigma (sqrt(m) + sqrt(n))`, give or take a few per
    cent. Rounding noise is not white: at its level the last clear gap decides instead, not the widest, since in a
    trained network the signal itself falls over many orders of magnitude.
    """
    m, n = residual.shape
    outside = float(residual.square().sum())
    rank, sigma = len(values), 0.0
    for _ in range(len(values)):  # each pass moves the values below the edge into the noise, until that is stable
        noise = outside + float(values[rank:].square().sum())
        sigma = (noise / max((m - rank) * (n - rank), 1)) ** 0.5
        edge = sigma * ((m - rank) ** 0.5 + (n - rank) ** 0.5)
        above = int((values[:rank] > 1.15 * edge).sum())
        if above == rank:
            break
        rank = above
    if sigma < 4 * eps * entry and rank > 0:
        floor = max(edge, _STORED * eps * entry * (m**0.5 + n**0.5))
        gaps = values[:rank] / torch.cat([values[1:], values.new_zeros(1)])[:rank].clamp_min(floor)
        clear = (gaps > _GAP).nonzero()[:, 0]
        rank = int(clear[-1]) + 1 if len(clear) else 0
        noise = outside + float(values[rank:].square().sum())
        sigma = (noise / max((m - rank) * (n - rank), 1)) ** 0.5
    return rank, sigma


def whiten(matrix: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """The matrix `[m, n]` with white noise, of the same size, in place of what it has beyond a known rank.

    What is not white there passes for further rank: `factorize` tells signal from noise by the edge of white noise.
    """
    right = torch.randn(
        matrix.shape[1],
        min(rank + _SPARE, *matrix.shape),
        generator=generator,
        device=matrix.device,
        dtype=matrix.dtype,
    )
    for _ in range(_ITERATIONS):
        right = torch.linalg.qr(matrix.T @ torch.linalg.qr(matrix @ right).Q).Q
    left, _, turn = torch.linalg.svd(matrix @ right, full_matrices=False)
    left, right = left[:, :rank], right @ turn[:rank].T
    signal = left @ (left.T @ matrix)
    noise = torch.randn(matrix.shape, generator=generator, device=matrix.device, dtype=matrix.dtype)
    noise -= left @ (left.T @ noise)
    noise -= (noise @ right) @ right.T
    whitened: Tensor = signal + noise * ((matrix - signal).norm() / noise.norm())
    return whitened
