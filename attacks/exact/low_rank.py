"""The low rank of a linear layer's gradient: rank and noise read off its singular values, and its factors.

The gradient of a batch of B is a sum of B outer products, so it has rank B at most; what lies outside is rounding, or
noise that was added.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from .copies import Distinct
from .products import times
from .rank import SEEN, Scale, rank_and_noise

_SPARE = 16  # columns beside the rank
_ITERATIONS = 8  # steps of a subspace iteration for a known rank, at most
_FIRST = 32  # columns of a range
_ROOM = 8  # columns beside the rank of a range that is worth turning in float64
_POWERS = 1  # power iterations of a range in the matrix's precision
_STEPS = 4  # of the power iteration in float64 at most
_BLIND = 4.0  # times the rounding error of the largest singular value: what arithmetic makes of nothing
_STILL, _RISEN = 1e-3, 1.5  # relative growth of a kept singular value, and growth of a dropped one, that is none
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

    @cached_property
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
    """A randomised range of a matrix, in the matrix's precision, float32 at least; it grows on demand."""

    matrix: Distinct
    generator: torch.Generator
    range: Tensor = field(init=False)  # orthonormal [m, k]

    def __post_init__(self) -> None:
        whole = self.matrix.matrix
        dtype = torch.promote_types(whole.dtype, torch.float32)
        self.range = torch.zeros(len(whole), 0, dtype=dtype, device=whole.device)

    def grow(self) -> None:
        """Twice as many columns, by power iterations so that a slowly falling spectrum is caught."""
        size = self.range.shape[1]
        columns = min(max(_FIRST, size), min(self.matrix.shape) - size)
        shape = (self.matrix.matrix.shape[1], columns)
        probe = torch.randn(shape, generator=self.generator, device=self.range.device, dtype=self.range.dtype)
        block = _orthonormal(self._outside(self.matrix.times(probe)))
        for _ in range(_POWERS):
            block = _orthonormal(self._outside(_power(self.matrix, block)))
        self.range = _orthonormal(torch.cat([self.range, block], dim=1))

    def _outside(self, block: Tensor) -> Tensor:
        return block - self.range @ (self.range.T @ block)


@dataclass(frozen=True)
class _Reading:
    """The singular values and vectors that a range has hold of, and how many of them are signal."""

    left: Tensor  # [m, k]
    values: Tensor  # [k]
    right: Tensor  # [k, n]
    rank: int
    sigma: float

    @property
    def spare(self) -> bool:
        """Whether the noise is seen: the range holds clearly more than the signal."""
        return self.rank < len(self.values) - SEEN

    @property
    def gap(self) -> float:
        """The last value that is signal over the first that is none."""
        noise = float(self.values[self.rank]) if self.rank < len(self.values) else 0.0
        return float(self.values[self.rank - 1]) / max(noise, torch.finfo(torch.float64).tiny)

    def settled(self, before: _Reading) -> bool:
        """Whether a power step has changed nothing that decides.

        A value grows as the range turns towards its vector, by the square of the angle that is left, and one that the
        range had no hold of comes up among the first that are dropped.
        """
        if self.rank != before.rank:
            return False
        grown = self.values[: self.rank + 1] / before.values[: self.rank + 1]
        return bool((grown[: self.rank] < 1 + _STILL).all() and (grown[self.rank :] < _RISEN).all())


def factorize(weight_gradient: Tensor, bias_gradient: Tensor, generator: torch.Generator) -> Factors | None:
    """Rank, noise level and factors of a linear layer's gradient; the batch size is read off the singular values.

    The range is sought in the gradient's own precision, where products are cheap, and turned by power steps in float64,
    a piece of the gradient at a time, until nothing changes that decides: values that fall over more orders of
    magnitude than float32 has show only there.

    Args:
        weight_gradient: `dL/dW [m, n]`.
        bias_gradient: `dL/db [m]`.
        generator: for the randomised SVD, on the gradient's device.

    Returns:
        The factors, no neuron taken for a copy of another, or None when no singular value stands clear of the noise or
        none of them is noise (no rank gap).
    """
    distinct = Distinct.of(weight_gradient)  # else the rounding of copies, which is the same, counts as a direction
    found = _settled(distinct, generator)
    if found is None or found.rank in (0, min(weight_gradient.shape)):
        return None
    m, rank, gap = len(weight_gradient), found.rank, found.gap
    left, values, right = found.left[:, :rank], found.values[:rank], found.right[:rank]
    if distinct.shape != weight_gradient.shape:
        whole = Distinct(weight_gradient)
        left, values, right = _turned(whole, _orthonormal(whole.times(right.T)))[:3]
    basis = m**0.5 * left
    ones = basis.T @ bias_gradient.double() / m
    return Factors(
        basis=basis,
        inputs=values[:, None] * right / m**0.5,
        ones=ones,
        singular_values=values,
        sigma=found.sigma,
        gap=gap,
        bias_residual=float((bias_gradient - basis @ ones).norm()) / max(m - rank, 1) ** 0.5,
        neurons=torch.arange(m, device=basis.device),
    )


def _settled(matrix: Distinct, generator: torch.Generator) -> _Reading | None:
    """The singular values of a matrix in float64, or None where all its entries are zero."""
    if not matrix.matrix.numel() or (scale := Scale.of(matrix)).entry == 0.0:
        return None
    sketch, limit, spare = _Sketch(matrix, generator), min(matrix.shape), _SPARE
    while True:
        sketch.grow()
        found = _read(matrix, sketch.range, scale)
        if found.rank + _ROOM <= len(found.values) or len(found.values) == limit:
            found = _refined(matrix, found, scale, spare)
            if found.spare or len(found.values) == limit:
                return found
            spare = limit  # more is hidden from the gradient's own precision than there was room for


def leading(matrix: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """The singular vectors `[m, count]`, `[count, n]` and values `[count]` that are largest, whatever the rank.

    In float64, by subspace iteration with a few vectors more, until the values grow no further.
    """
    size = min(count + _SPARE, *matrix.shape)
    whole = Distinct(matrix)
    sketch = _Sketch(whole, generator)
    while sketch.range.shape[1] < size:
        sketch.grow()
    left, values, right, _ = _turned(whole, sketch.range)
    range_ = left[:, :size].double()
    for _ in range(_ITERATIONS):
        before = values[:count]
        left, values, right, _ = _turned(whole, _orthonormal(range_))
        if bool((values[:count] < (1 + _STILL) * before).all()):
            break
        range_ = times(matrix, right.T)
    return left[:, :count], values[:count], right[:count]


def _refined(matrix: Distinct, found: _Reading, scale: Scale, spare: int) -> _Reading:
    """What the range holds in float64, with so many spare columns beside the rank at most."""
    found = _read(matrix, _orthonormal(found.left[:, : found.rank + spare].double()), scale)
    for _ in range(_STEPS):
        before = found
        found = _read(matrix, _orthonormal(matrix.times(before.right.T)), scale)
        if found.settled(before) or not found.spare:  # it has to grow then, whatever further steps would change
            break
    return found


def _read(matrix: Distinct, range_: Tensor, scale: Scale) -> _Reading:
    """The singular values that an orthonormal range `[m, k]` has hold of, in its precision, those below it as zero."""
    left, values, right, outside = _turned(matrix, range_)
    shown = values > _BLIND * torch.finfo(values.dtype).eps * values[0]
    outside = outside + values.double().masked_fill(shown, 0.0).square().sum()
    values = values.where(shown, 0.0)
    few = torch.cat([values.double(), outside[None]]).cpu()  # once: a device is not waited for at every decision
    rank, sigma = rank_and_noise(float(few[-1]), few[:-1], scale)
    return _Reading(left, values, right, rank, sigma)


def _turned(matrix: Distinct, range_: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The singular vectors and values of a matrix within an orthonormal range `[m, k]`, and the energy outside it."""
    coordinates, outside = matrix.onto(range_)
    basis, triangle = torch.linalg.qr(coordinates.T)
    turn, values, mix = torch.linalg.svd(triangle)
    return range_ @ mix.T, values, (basis @ turn).T, outside


def _orthonormal(block: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(block).Q
    return basis


def _power(matrix: Distinct, block: Tensor) -> Tensor:
    """`A A^T block`, no square of an entry formed, which may be too small for float32."""
    return matrix.times(_orthonormal(matrix.transposed.times(block)))


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
