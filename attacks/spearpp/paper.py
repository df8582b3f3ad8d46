"""The published recipe alone, so that what is added to it can be measured: `preset=paper`.

Fresh restarts of l1 with Riemannian Adam, rounding by sampling row sets, and the greedy selection by the
sparsity-matching coefficient (SPEAR++, and SPEAR sections 3 and 4). Nothing is certified. Objective, optimizer and
rounding are settings here too, as the paper compares them.
"""

from __future__ import annotations

import torch

from ..exact.refine import Directions, distinct
from ..exact.select import independent, swap
from .candidates import untested
from .rounds import Found, Hunt
from .search import random_starts


def published(hunt: Hunt) -> Found:
    """Run the recipe until lambda of the whole batch is 1, or rounds or time have run out."""
    factors, context = hunt.factors, hunt.context
    pool = hunt.pool.directions
    while True:
        context.progress(f"round {hunt.rounds + 1}: {len(pool)} candidates", None)
        count = 2 * factors.rank
        with hunt.clock.stage("search"):
            starts = random_starts(factors.rank, count, None, context.generator)
            ends = hunt.search.ends(factors, starts)
        with hunt.clock.stage("refine"):
            pool = distinct(pool.join(hunt.search.rounded(factors, ends, context.generator)))
        hunt.starts += count
        hunt.rounds += 1
        with hunt.clock.stage("select"):
            found = _greedy(hunt, pool)
        if (not found.missing and found.batch.matches) or hunt.rounds >= hunt.search.rounds or context.expired():
            return found


def _greedy(hunt: Hunt, candidates: Directions) -> Found:
    """The sparsest B independent candidates; then each other one takes the place of a member where lambda rises."""
    order = torch.arange(len(candidates), device=candidates.vectors.device)  # `distinct` has sorted them by zeros
    members = independent(candidates.vectors, order, hunt.factors.rank)
    if len(members) < hunt.factors.rank:
        return hunt.filled_up(untested(candidates.select(order[members])))
    others = [index for index in order.tolist() if index not in members]
    members, batch = swap(candidates, members, others, hunt.assemble)
    return Found(untested(batch.directions), batch, 0)
