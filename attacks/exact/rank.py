"""How many singular values of a gradient are signal: what white noise has none above, and what rounding leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .copies import Distinct

SEEN = 4  # values beside the signal's that show the noise
_GAP = 2.0  # from one singular value to the next: what rounding noise does not show by itself (1.3 at most, measured)
_STORED = 0.2  # of the spacing of floating-point numbers: the standard deviation of rounding to the nearest of them


@dataclass(frozen=True)
class Scale:
    """What is known of a matrix's rounding before its singular values are."""

    shape: tuple[int, int]
    eps: float  # of the entries' format
    entry: float  # root mean square of the entries
    longest: float  # sum of the lengths of the longest row and the longest column

    @classmethod
    def of(cls, matrix: Distinct) -> Scale:
        rows, columns = matrix.energies()
        few = torch.stack([rows.sum() / math.prod(matrix.shape), rows.max(), columns.max()]).sqrt().tolist()
        return cls(matrix.shape, torch.finfo(matrix.matrix.dtype).eps, few[0], few[1] + few[2])

    @property
    def stored(self) -> float:
        """The largest singular value of what storing leaves of entries of one size."""
        return _STORED * self.eps * self.entry * (math.sqrt(self.shape[0]) + math.sqrt(self.shape[1]))

    def summed(self, terms: int) -> float:
        """The largest one of sums of so many terms, each of which is rounded, when entries differ in size.

        The longest row and column bound it (Bandeira and van Handel, Annals of Probability 2016, arXiv 1408.6185).
        """
        return _STORED * self.eps * math.sqrt(1 + terms / 2) * self.longest  # partial sums are half as large on average


def rank_and_noise(outside: float, values: Tensor, scale: Scale) -> tuple[int, float]:
    """How many of the singular values are signal, and the noise of one entry.

    White noise of an m x n matrix has no singular value above `sigma (sqrt(m) + sqrt(n))`, give or take a few per
    cent. Rounding noise is not white: at its level the last clear gap decides instead, not the widest, since in a
    trained network the signal itself falls over many orders of magnitude.

    Args:
        outside: sum of squares of what the singular vectors do not explain.
        values: the singular values that are known, `[k]`.
        scale: of the matrix.
    """
    m, n = scale.shape
    rank, sigma = len(values), 0.0
    for _ in range(len(values)):  # each pass moves the values below the edge into the noise, until that is stable
        noise = outside + float(values[rank:].square().sum())
        sigma = (noise / max((m - rank) * (n - rank), 1)) ** 0.5
        edge = sigma * ((m - rank) ** 0.5 + (n - rank) ** 0.5)
        above = int((values[:rank] > 1.15 * edge).sum())
        if above == rank:
            break
        rank = above
    if sigma < 4 * scale.eps * scale.entry and rank > 0:
        following = torch.cat([values[1:], values.new_zeros(1)])
        shown = min(len(values) - 1, min(m, n) - SEEN)  # the last of a range, and of few, have no noise after them
        following[max(shown, 0) :].clamp_min_(scale.summed(rank))
        gaps = values[:rank] / following[:rank].clamp_min(max(edge, scale.stored))
        clear = (gaps > _GAP).nonzero()[:, 0]
        rank = int(clear[-1]) + 1 if len(clear) else 0
        noise = outside + float(values[rank:].square().sum())
        sigma = (noise / max((m - rank) * (n - rank), 1)) ** 0.5
    return rank, sigma
