"""The published recipe alone, so that what is added to it can be measured: `preset=paper`.

Fresh restarts of l1 with Riemannian Adam, rounding by sampling row sets, and the greedy selection by the
sparsity-matching coefficient (SPEAR++, and SPEAR sections 3 and 4). Nothing is certified.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear_layer import Factors
from .hunt import Found, Hunt
from .pool import untested
from .refine import Directions, distinct, zero_rows
from .search import minimize_l1, random_starts
from .select import independent, swap

_NEAR = 1.5  # times B: how many of the smallest rows the sets are sampled from
_SETS = 100  # sampled for each end point of the search


def published(hunt: Hunt) -> Found:
    """Run the recipe until lambda of the whole batch is 1, or rounds or time have run out."""
    factors, context = hunt.factors, hunt.context
    pool = hunt.pool.directions
    while True:
        context.progress(f"round {hunt.rounds + 1}: {len(pool)} candidates", None)
        count = 2 * factors.rank
        with hunt.clock.stage("search"):
            starts = random_starts(factors.rank, count, None, context.generator)
            ends = minimize_l1(factors.basis, starts, hunt.search.iterations, hunt.search.step)
        with hunt.clock.stage("refine"):
            pool = distinct(pool.join(sampled_rounding(factors, ends.double(), context.generator)))
        hunt.starts += count
        hunt.rounds += 1
        with hunt.clock.stage("select"):
            found = _greedy(hunt, pool)
        if (not found.missing and found.batch.matches) or hunt.rounds >= hunt.search.rounds or context.expired():
            return found


def sampled_rounding(factors: Factors, ends: Tensor, generator: torch.Generator) -> Directions:
    """For each end point `[B, K]`, the sparsest of the null vectors of row sets sampled where it is near zero."""
    m, rank = factors.basis.shape
    near = min(m, max(rank, int(_NEAR * rank)))
    rounded = []
    for end in ends.T:
        rows = factors.basis[(factors.basis @ end).abs().argsort()[:near]]
        order = torch.rand(_SETS, near, generator=generator, device=rows.device).argsort(dim=1)
        sets = rows[order[:, : rank - 1]]  # [sets, B - 1, B]
        vectors = torch.linalg.qr(sets.mT, mode="complete").Q[:, :, -1].T
        zeros = zero_rows(factors, vectors)
        best = zeros.sum(dim=0).argmax()
        rounded.append(Directions(vectors[:, best, None], zeros[:, best, None]))
    return Directions(torch.cat([each.vectors for each in rounded], 1), torch.cat([each.zeros for each in rounded], 1))


def _greedy(hunt: Hunt, candidates: Directions) -> Found:
    """The sparsest B independent candidates; then each other one takes the place of a member where lambda rises."""
    order = torch.arange(len(candidates), device=candidates.vectors.device)  # `distinct` has sorted them by zeros
    members = independent(candidates.vectors, order, hunt.factors.rank)
    if len(members) < hunt.factors.rank:
        return hunt.filled_up(untested(candidates.select(order[members])))
    others = [index for index in order.tolist() if index not in members]
    members, batch = swap(candidates, members, others, hunt.assemble)
    return Found(untested(batch.directions), batch, 0)
