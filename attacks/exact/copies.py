"""Rows and columns of a gradient that are copies of others: what rounding has left in one, it has left in each of them.

A pixel that is the same as another in every image of a batch, as those of a background are, gives the same column to
the last bit. The rounding of many such columns is one direction, which stands as clear of all other rounding as an
image does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .chunks import chunks

_LOOKED_AT = 64  # entries of a column that mostly tell it from all others
_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}  # by the size of a number


def without_copies(matrix: Tensor) -> tuple[Tensor, Tensor | None]:
    """The matrix `[m, n]` with one of each of its rows and columns, and which columns these are; None where all are."""
    columns = _first_of_each(matrix)
    few = matrix if columns is None else matrix[:, columns]
    rows = _first_of_each(few.T)
    return few if rows is None else few[rows], columns


def _first_of_each(matrix: Tensor) -> Tensor | None:
    """Which columns of `[m, n]` are no copies of an earlier one, in rising order; None where none is a copy."""
    some = matrix[:: max(1, -(-len(matrix) // _LOOKED_AT))]
    if len(torch.unique(_sums(some))) == matrix.shape[1]:
        return None
    different, group = torch.unique(_sums(matrix), return_inverse=True)
    number = torch.arange(len(group), device=matrix.device)
    first = number.new_full((len(different),), len(number)).scatter_reduce(0, group, number, "amin")
    return None if len(first) == len(number) else first.sort().values


def _sums(matrix: Tensor) -> Tensor:
    """A number `[n]` for each column, the same for copies: its bits in a random combination of whole numbers."""
    weights = torch.randint(2**62, (len(matrix), 1), generator=torch.Generator().manual_seed(0)).to(matrix.device)
    parts = chunks(matrix.shape[1], 3 * 8 * len(matrix), matrix.device)
    bits = _BITS[matrix.element_size()]
    return torch.cat([((matrix[:, part] + 0.0).view(bits) * weights).sum(dim=0) for part in parts])  # of zero, one sign
