"""Products with a large matrix in higher precision than its own: a piece of it at a time is converted, never all.

A layer's weights and gradient are the largest tensors there are, and float64 would double each.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from .chunks import chunks

_SMALLER = 8  # times than other chunks: a piece is read again right after it is converted, from the cache


def times(matrix: Tensor, block: Tensor) -> Tensor:
    """`matrix [m, n] @ block [n, k]` in the precision of the block."""
    if matrix.dtype == block.dtype:
        return matrix @ block
    m, n = matrix.shape
    product = block.new_zeros(m, block.shape[1])
    for part, piece in _pieces(matrix, block.dtype):
        if m < n:  # over the longer side, so that neither the pieces nor the product are visited often
            product += piece @ block[part]
        else:
            product[part] = piece @ block
    return product


def energy(matrix: Tensor) -> Tensor:
    """The sum of the squares of all entries, in float64."""
    found = torch.zeros((), dtype=torch.float64, device=matrix.device)
    for _, piece in _pieces(matrix, torch.float64):
        found += piece.square().sum()
    return found


def energies(
    matrix: Tensor, row_counts: Tensor | None = None, column_counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sums of the squares of each row's entries and of each column's, `[m]` and `[n]` in float64.

    Args:
        matrix: `[m, n]`.
        row_counts: `[m, 1]` booleans: which rows are not taken for zero; all if None.
        column_counts: `[n, 1]`, likewise.
    """
    wide = matrix.shape[0] < matrix.shape[1]
    rows, columns = (torch.zeros(size, dtype=torch.float64, device=matrix.device) for size in matrix.shape)
    for part, piece in _pieces(matrix, torch.float64):
        down, across = (slice(None), part) if wide else (part, slice(None))
        squares = piece.square()
        if row_counts is not None:
            squares *= row_counts[down]
        if column_counts is not None:
            squares *= column_counts[across, 0]
        rows[down] += squares.sum(dim=1)
        columns[across] += squares.sum(dim=0)
    return rows, columns


def onto(
    range_: Tensor, matrix: Tensor, row_counts: Tensor | None = None, column_counts: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`range_.T @ matrix` of an orthonormal `[m, k]`, `[k, n]` in its precision, and the energy that this leaves out.

    Both in one passage through the matrix `[m, n]`, of which each piece is converted and read from memory once. Rows
    and columns may be taken for zero, as by `energies`.
    """
    m, n = matrix.shape
    coordinates = range_.new_empty(range_.shape[1], n)
    left_out = torch.zeros((), dtype=torch.float64, device=matrix.device)
    for part in chunks(n, _SMALLER * 8 * m, matrix.device):
        piece = matrix[:, part].to(range_.dtype, copy=True)
        if row_counts is not None:
            piece *= row_counts
        if column_counts is not None:
            piece *= column_counts[part, 0]
        coordinates[:, part] = range_.T @ piece
        piece.addmm_(range_, coordinates[:, part], alpha=-1)
        left_out += torch.linalg.vector_norm(piece, dtype=torch.float64).square()
    return coordinates, left_out


def energy_outside(matrix: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The sum of the squares of all entries of `matrix [m, n] - left [m, k] @ right [k, n]`, in their precision."""
    wide = matrix.shape[0] < matrix.shape[1]
    found = torch.zeros((), dtype=torch.float64, device=matrix.device)
    for part, piece in _pieces(matrix, left.dtype):
        factors = (left, right[:, part]) if wide else (left[part], right)
        found += torch.addmm(piece, *factors, alpha=-1).double().square().sum()
    return found


def row_norms(matrix: Tensor) -> Tensor:
    """The length of each row, `[m]` in float64."""
    return energies(matrix)[0].sqrt()


def _pieces(matrix: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Slices along the matrix's longer side, columns or rows, and what stands there in another precision."""
    m, n = matrix.shape
    for part in chunks(max(m, n), _SMALLER * 8 * min(m, n), matrix.device):
        yield part, (matrix[:, part] if m < n else matrix[part]).to(dtype)
