"""Rounds the search's end points as the paper does: by null vectors of row sets sampled where they are near zero."""

from __future__ import annotations

import torch
from torch import Tensor

from ..exact.low_rank import Factors
from ..exact.refine import Directions, zero_rows

_NEAR = 1.5  # times B: how many of the smallest rows the sets are sampled from
_SETS = 100  # sampled for each end point of the search
_MEMORY = 2**27  # bytes of row copies, and of columns, in one chunk of end points


def sampled_rounding(factors: Factors, ends: Tensor, generator: torch.Generator) -> Directions:
    """For each end point `[B, K]`, the sparsest of the null vectors of row sets sampled where it is near zero.

    An end point all of whose sets are singular (of duplicated or dead neurons) is left out.
    """
    m, rank = factors.basis.shape
    chunk = max(1, _MEMORY // (8 * _SETS * max(m, rank * rank)))
    rounded = [_sparsest(factors, part, generator) for part in torch.split(ends.to(factors.basis), chunk, 1)]
    return Directions(torch.cat([each.vectors for each in rounded], 1), torch.cat([each.zeros for each in rounded], 1))


def _sparsest(factors: Factors, ends: Tensor, generator: torch.Generator) -> Directions:
    m, rank = factors.basis.shape
    count = ends.shape[1]
    near = (factors.basis @ ends).abs().argsort(dim=0)[: min(m, max(rank, int(_NEAR * rank)))].T  # [K, near]
    order = torch.rand(count, _SETS, near.shape[1], generator=generator, device=ends.device).argsort(dim=2)
    chosen = near[:, None].expand_as(order).gather(2, order[:, :, : rank - 1])
    anchors = ends.T[:, None, None].expand(count, _SETS, 1, rank)
    systems = torch.cat([factors.basis[chosen], anchors], dim=2)  # zero on the set, one along the end point
    ones = torch.zeros(rank, dtype=ends.dtype, device=ends.device)
    ones[-1] = 1
    vectors = torch.linalg.solve_ex(systems, ones.expand(count, _SETS, rank))[0]
    vectors = vectors / vectors.norm(dim=2, keepdim=True)
    zeros = zero_rows(factors, vectors.flatten(0, 1).T).view(m, count, _SETS)  # none where a vector is not finite
    best = zeros.sum(dim=0).argmax(dim=1)
    each = torch.arange(count, device=ends.device)
    vectors, zeros = vectors[each, best].T, zeros[:, each, best]
    sound = vectors.isfinite().all(dim=0)
    return Directions(vectors[:, sound], zeros[:, sound])
