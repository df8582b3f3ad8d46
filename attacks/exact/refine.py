"""Turns the search's approximate minimisers into exact directions, in float64, all candidates at once.

A true direction is the null vector of the rows of L where its column is zero. Which rows those are is decided by a
test calibrated on the noise read off the singular values; both are repeated until the zero set stops changing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .chunks import chunks
from .low_rank import Factors
from .stable import until_stable

_ZERO_AT = 4.0  # standard deviations of the noise of `L q` within which an entry counts as zero
_FLOOR = 1e-6  # of the largest entry: what float32 arithmetic leaves where exact arithmetic has zero
_SHIFT = 1e-13  # keeps the Gram matrix of the zero rows invertible; relative to the trace of that of all rows
_PARALLEL = 1e-6  # of 1 - |cos|
_FEW = 2  # rows
_PASSES = 12  # of zero set and null vector at most


@dataclass(frozen=True)
class Directions:
    """Candidate directions: unit vectors `[B, K]` and where their columns `L q` are zero, `[m, K]`."""

    vectors: Tensor
    zeros: Tensor

    def __len__(self) -> int:
        return self.vectors.shape[1]

    def select(self, index: Tensor) -> Directions:
        """Those candidates, in that order."""
        return Directions(self.vectors[:, index], self.zeros[:, index])

    def join(self, other: Directions) -> Directions:
        """These candidates and then the other ones."""
        return Directions(torch.cat([self.vectors, other.vectors], dim=1), torch.cat([self.zeros, other.zeros], dim=1))


def no_directions(factors: Factors) -> Directions:
    """None yet."""
    basis = factors.basis
    return Directions(basis.new_zeros(factors.rank, 0), torch.zeros_like(basis, dtype=torch.bool)[:, :0])


def tolerance(factors: Factors, vectors: Tensor, columns: Tensor) -> Tensor:
    """Below which an entry of each column of `columns = L q` counts as zero: `[K]`."""
    return _ZERO_AT * factors.noise(vectors) + _FLOOR * columns.abs().amax(dim=0)


def zero_rows(factors: Factors, vectors: Tensor) -> Tensor:
    """The zero set of `L q` of each direction, `[m, K]` booleans."""
    columns = factors.basis @ vectors
    return columns.abs() <= tolerance(factors, vectors, columns)


def near_zero(factors: Factors, vectors: Tensor) -> Tensor:
    """How many entries of each `L q` lie between one and two tolerances: as many as it hides, about. `[K]`."""
    columns = factors.basis @ vectors
    limit = tolerance(factors, vectors, columns)
    return ((columns.abs() > limit) & (columns.abs() <= 2 * limit)).sum(dim=0)


def smallest(factors: Factors, rows: Tensor, start: Tensor, vectors: int = 1) -> tuple[Tensor, Tensor]:
    """The smallest right singular vectors of L restricted to each candidate's rows.

    Args:
        factors: of the gradient.
        rows: `[m, K]` booleans.
        start: `[B, K]`, where the inverse iteration starts.
        vectors: how many singular vectors.

    Returns:
        Singular vectors `[K, B, vectors]`, smallest first, and the root mean square of L times them over the rows,
        `[K, vectors]`.
    """
    m, rank = factors.basis.shape
    found, values = [], []
    for part, chosen in restricted(factors, rows):
        gram = chosen.mT @ chosen  # [k, B, B]
        shift = _SHIFT * m * rank * torch.eye(rank, dtype=gram.dtype, device=gram.device)
        factor = torch.linalg.cholesky_ex(gram + shift)[0]
        block = _start_block(start[:, part].T, vectors)
        for _ in range(2 if vectors == 1 else 6):
            block = torch.linalg.qr(torch.cholesky_solve(block, factor)).Q
        small, mix = torch.linalg.eigh(block.mT @ gram @ block)
        found.append(block @ mix)
        values.append((small.clamp_min(0) / rows[:, part].sum(dim=0)[:, None].clamp_min(1)).sqrt())
    return torch.cat(found), torch.cat(values)


def restricted(factors: Factors, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """L restricted to each candidate's rows, in chunks that fit the memory.

    Args:
        factors: of the gradient.
        rows: `[m, K]` booleans.

    Yields:
        Which candidates; their rows of L `[k, w, B]`, filled up with zeros.
    """
    width = max(int(rows.sum(dim=0).amax()), 1) if rows.shape[1] else 1
    basis = torch.cat([factors.basis, factors.basis.new_zeros(1, factors.rank)])
    for part in chunks(rows.shape[1], 8 * width * factors.rank, rows.device):
        chosen, index = rows[:, part].T.to(torch.uint8).topk(width, dim=1)
        yield part, basis[torch.where(chosen.bool(), index, len(rows))]


def _start_block(start: Tensor, vectors: int) -> Tensor:
    """`[K, B, vectors]`: the start and, beside it, fixed generic vectors."""
    count, rank = start.shape
    ramp = torch.arange(rank * (vectors - 1), dtype=start.dtype, device=start.device)
    extra = torch.cos(1.7 * ramp * ramp + 0.3).view(rank, vectors - 1)  # deterministic, and generic enough
    return torch.cat([start[:, :, None], extra.expand(count, rank, vectors - 1)], dim=2)


def refine(factors: Factors, approximate: Tensor) -> Directions:
    """Round approximate directions to exact ones.

    Args:
        factors: of the gradient.
        approximate: unit vectors `[B, K]`.

    Returns:
        The directions whose zero set became stable and is large enough to determine them.
    """
    m, rank = factors.basis.shape
    # An approximate direction has no exact zeros yet: take its smallest rows. A few more than B are zeros even of a
    # column with few of them; a quarter of all rows see more than the zeros that near-duplicates have in common.
    few = min(m, int(1.2 * rank) + 1)
    tries = [_nearby(factors, approximate.double(), count) for count in sorted({few, max(few, m // 4)})]
    return settle(factors, torch.cat(tries, dim=1))


def settle(factors: Factors, vectors: Tensor) -> Directions:
    """Take the null vector of each direction's zero set until that set is stable.

    Args:
        factors: of the gradient.
        vectors: unit vectors `[B, K]` near enough to have exact zeros.

    Returns:
        The directions whose zero set became stable and is large enough to determine them.
    """
    needed = factors.rank - 1
    zeros = zero_rows(factors, vectors)
    kept = (zeros.sum(dim=0) >= needed).nonzero()[:, 0]
    found = distinct(Directions(vectors[:, kept], zeros[:, kept]), differing=0)  # many of them have met
    vectors, zeros, unstable = until_stable(
        lambda zeros, vectors: smallest(factors, zeros, vectors)[0][:, :, 0].T,
        lambda vectors: zero_rows(factors, vectors),
        *(found.vectors, found.zeros, _PASSES),
        least=needed,
    )
    stable = zeros.sum(dim=0) >= needed
    stable[unstable] = False
    return distinct(Directions(vectors[:, stable], zeros[:, stable]))


def _nearby(factors: Factors, vectors: Tensor, count: int) -> Tensor:
    """Each direction `[B, K]` moved to the null vector of its `count` smallest rows, twice."""
    for _ in range(2):
        columns = (factors.basis @ vectors).abs()
        rows = columns <= torch.maximum(columns.kthvalue(count, dim=0).values, tolerance(factors, vectors, columns))
        vectors = smallest(factors, rows, vectors)[0][:, :, 0].T
    return vectors


def distinct(directions: Directions, differing: int = _FEW) -> Directions:
    """Without repetitions (see `duplicates`), those with the most zeros first."""
    order = directions.zeros.sum(dim=0).argsort(descending=True, stable=True)
    ordered = directions.select(order)
    first = ~torch.triu(duplicates(ordered, ordered, differing), diagonal=1).any(dim=0)
    return ordered.select(first.nonzero()[:, 0])


def duplicates(one: Directions, other: Directions, differing: int = _FEW) -> Tensor:
    """Which of `one` are the same as which of `other`, `[K, L]`: nearly parallel, and so many zero rows apart at most.

    Both, since a mixture with little of a second image is as parallel but has fewer zeros.
    """
    a, b = one.zeros.double(), other.zeros.double()
    differ = a.sum(dim=0)[:, None] + b.sum(dim=0) - 2 * a.T @ b
    return ((one.vectors.T @ other.vectors).abs() > 1 - _PARALLEL) & (differ <= differing)
