"""The missing entries of a low-rank matrix, from those that are known.

A matrix of rank B with m rows and n columns is `A V^T` and has `(m + n - B) B` free numbers, far fewer than a pruned
gradient keeps. Alternating least squares finds them: V given A column by column from the column's known entries, then A
given V, row by row. Which entries are known may depend on their values, as in top-k pruning: nothing is averaged over
the missing ones, so nothing is biased.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..exact.chunks import chunks

_RIDGE = 1e-12  # of a whole line's Gram matrix: decides where the known entries leave a line's factor open
_FIRST, _PASSES = 3, 200  # passes at most: before the last dimension is there, and after
_FITTED = 1e-3  # relative fall of the residual below which it has converged
_POWERS = 5  # steps of the power iteration
_HELD = 0.05  # share of the known entries that a fit is judged by
_BETTER = 0.97  # of the held-out error: one more dimension that is noise gains less
_ROUNDING = 1e-7  # held-out errors below it are all the same


@dataclass(frozen=True)
class Completion:
    """A completed matrix and how well its known entries determine it.

    What the known entries of a row or column say of its factor falls short of what a whole one would say, in the worst
    direction, by its `rows` or `columns` entry: the inverse of the growth of the noise's variance there. 1 is whole, 0
    is undetermined.
    """

    matrix: Tensor  # [m, n], the known entries as they are
    rank: int
    held_out: float  # median error of entries that were held out, relative to their size
    rows: Tensor  # [m] in [0, 1]
    columns: Tensor  # [n] in [0, 1]
    known: float  # share of the entries


def complete_matrix(
    matrix: Tensor,
    known: Tensor,
    generator: torch.Generator,
    at_most: int | None = None,
    expired: Callable[[], bool] = lambda: False,
) -> Completion:
    """Complete a matrix; its rank is the one that predicts held-out entries best.

    Args:
        matrix: `[m, n]` float64; what it holds at unknown entries does not matter.
        known: `[m, n]` booleans. A row with fewer of them than the rank says nothing.
        generator: chooses the entries that are held out.
        at_most: a bound of the rank, where the search for it starts; without it, it starts at 1.
        expired: asked between fits.
    """
    matrix = matrix.masked_fill(~known, 0.0)
    held = known & (torch.rand(known.shape, generator=generator, device=known.device) < _HELD)
    errors: dict[int, float] = {}

    def error(rank: int) -> float:
        if rank not in errors:
            fitted = _fit(matrix, known & ~held, rank).product()
            errors[rank] = float((fitted - matrix)[held].abs().median() / matrix[held].abs().median())
        return errors[rank]

    limit = min(matrix.shape)
    rank = 1 if at_most is None else min(at_most, limit)
    while at_most is not None and rank > 1 and not expired():
        if error(rank - 1) > max(error(rank) / _BETTER, _ROUNDING):
            break
        rank -= 1
    while at_most is None and rank < limit and not expired() and error(rank + 1) < _BETTER * error(rank):
        rank += 1
    fit = _fit(matrix, known, rank)
    return Completion(
        torch.where(known, matrix, fit.product()),
        rank,
        error(rank),
        _determined(fit.columns, known.T),
        _determined(fit.rows, known),
        float(known.double().mean()),
    )


@dataclass(frozen=True)
class _Fit:
    rows: Tensor  # A [m, B]
    columns: Tensor  # V [n, B]

    def product(self) -> Tensor:
        return self.rows @ self.columns.T


def _fit(matrix: Tensor, known: Tensor, rank: int) -> _Fit:
    """Alternating least squares on the known entries, from rank 1 up.

    Each dimension starts as the leading one of what is left: all at once, weak ones never come out of the gaps.
    """
    residual = matrix = matrix.masked_fill(~known, 0.0)
    rows = matrix.new_zeros(len(matrix), 0)
    last = torch.inf
    for passes in [_FIRST] * (rank - 1) + [_PASSES]:
        rows = torch.cat([_orthonormal(rows), _leading(residual)[:, None]], dim=1)
        for _ in range(passes):
            columns = _orthonormal(_solve(_orthonormal(rows), matrix, known))
            rows = _solve(columns, matrix.T, known.T)
            residual = (matrix - rows @ columns.T).masked_fill(~known, 0.0)
            size = float(residual.norm())
            if size > (1 - _FITTED) * last:
                break
            last = size
    return _Fit(rows, columns)


def _leading(matrix: Tensor) -> Tensor:
    """About the leading left singular vector, `[m]`."""
    vector = matrix[:, matrix.norm(dim=0).argmax()]
    for _ in range(_POWERS):
        vector = matrix @ (matrix.T @ (vector / vector.norm().clamp_min(1e-300)))
    leading: Tensor = vector / vector.norm().clamp_min(1e-300)
    return leading


def _orthonormal(factor: Tensor) -> Tensor:
    basis: Tensor = torch.linalg.qr(factor).Q
    return basis


def _solve(basis: Tensor, lines: Tensor, known: Tensor) -> Tensor:
    """Each column of `lines [m, n]` as a combination of the orthonormal `basis [m, B]`, on its known entries: `[n, B]`.

    Of several solutions the shortest, about.
    """
    solution = lines.T @ basis
    for part, gram in _grams(basis, known):
        gram.diagonal(dim1=1, dim2=2).add_(_RIDGE)
        factor = torch.linalg.cholesky_ex(gram)[0]
        solution[part] = torch.cholesky_solve(solution[part, :, None], factor)[:, :, 0]
    return solution


def _determined(basis: Tensor, known: Tensor) -> Tensor:
    """The smallest eigenvalue of each line's Gram matrix, `[n]`; that of a whole line is 1."""
    smallest = [torch.linalg.eigvalsh(gram)[:, 0] for _, gram in _grams(_orthonormal(basis), known)]
    return torch.cat(smallest).clamp(0, 1)


def _grams(basis: Tensor, known: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The Gram matrix `[B, B]` of the known rows of `basis [m, B]`, for chunks of the columns of `known [m, n]`."""
    m, rank = basis.shape
    for part in chunks(known.shape[1], 8 * rank * (m + rank), basis.device):
        seen = basis * known.T[part, :, None]
        yield part, seen.mT @ basis
