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
    wide = matrix.shape[0] < matrix.shape[1]
    squares = torch.zeros(len(matrix), dtype=torch.float64, device=matrix.device)
    for part, piece in _pieces(matrix, torch.float64):
        squares[slice(None) if wide else part] += piece.square().sum(dim=1)
    return squares.sqrt()


def _pieces(matrix: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """Slices along the matrix's longer side, columns or rows, and what stands there in another precision."""
    m, n = matrix.shape
    for part in chunks(max(m, n), _SMALLER * 8 * min(m, n), matrix.device):
        yield part, (matrix[:, part] if m < n else matrix[part]).to(dtype)
