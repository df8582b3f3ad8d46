"""Rows and columns of a gradient that are copies of others: what rounding has left in one, it has left in each of them.

A pixel that is the same as another in every image of a batch, as those of a background are, gives the same column to
the last bit. The rounding of many such columns is one direction, which stands as clear of all other rounding as an
image does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .chunks import chunks
from .products import energies, onto, times

_LOOKED_AT = 64  # entries of a column that mostly tell it from all others
_BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16}  # by the size of a number


@dataclass(frozen=True)
class Distinct:
    """A matrix whose rows and columns that are copies of others count as zero; nothing of it is stored anew."""

    matrix: Tensor  # [m, n]
    rows: Tensor | None = None  # [m, 1] booleans: which are no copies of earlier ones; None where none is
    columns: Tensor | None = None  # [n, 1], likewise

    @classmethod
    def of(cls, matrix: Tensor) -> Distinct:
        return cls(matrix, _first_of_each(matrix.T), _first_of_each(matrix))

    @property
    def transposed(self) -> Distinct:
        return Distinct(self.matrix.T, self.columns, self.rows)

    @cached_property
    def shape(self) -> tuple[int, int]:
        """How many rows and columns count."""
        m, n = (
            size if kept is None else int(kept.sum())
            for size, kept in zip(self.matrix.shape, (self.rows, self.columns), strict=True)
        )
        return m, n

    def times(self, block: Tensor) -> Tensor:
        """The product `[m, k]` with `[n, k]`, in the precision of the block."""
        return _only(self.rows, times(self.matrix, _only(self.columns, block)))

    def onto(self, range_: Tensor) -> tuple[Tensor, Tensor]:
        """As `products.onto`."""
        return onto(range_, self.matrix, self.rows, self.columns)

    def energies(self) -> tuple[Tensor, Tensor]:
        """As `products.energies`."""
        return energies(self.matrix, self.rows, self.columns)


def _only(kept: Tensor | None, block: Tensor) -> Tensor:
    return block if kept is None else block * kept


def _first_of_each(matrix: Tensor) -> Tensor | None:
    """Which columns of `[m, n]` are no copies of an earlier one, `[n, 1]` booleans; None where none is a copy."""
    some = matrix[:: max(1, -(-len(matrix) // _LOOKED_AT))]
    if len(torch.unique(_sums(some))) == matrix.shape[1]:
        return None
    different, group = torch.unique(_sums(matrix), return_inverse=True)
    number = torch.arange(len(group), device=matrix.device)
    first = number.new_full((len(different),), len(number)).scatter_reduce(0, group, number, "amin")
    if len(first) == len(number):
        return None
    return torch.zeros_like(number, dtype=torch.bool).index_fill_(0, first, True)[:, None]


def _sums(matrix: Tensor) -> Tensor:
    """A number `[n]` for each column, the same for copies: its bits in a random combination of whole numbers."""
    weights = torch.randint(2**62, (len(matrix), 1), generator=torch.Generator().manual_seed(0)).to(matrix.device)
    parts = chunks(matrix.shape[1], 3 * 8 * len(matrix), matrix.device)
    bits = _BITS[matrix.element_size()]
    return torch.cat([((matrix[:, part] + 0.0).view(bits) * weights).sum(dim=0) for part in parts])  # of zero, one sign
