"""The published recipe alone, so that what is added to it can be measured: `preset=paper`.

Fresh restarts of l1 with Riemannian Adam, rounding by sampling row sets, and the greedy selection by the
sparsity-matching coefficient (SPEAR++, and SPEAR sections 3 and 4). Nothing is certified. Objective, optimizer and
rounding are settings here too, as the paper compares them.
"""

from __future__ import annotations

from ..exact.recovery import Found
from ..exact.refine import distinct, no_directions
from ..exact.sphere import random_starts
from .rounds import SparseRecovery


def published(recovery: SparseRecovery) -> Found:
    """Run the recipe until lambda of the whole batch is 1, or rounds or time have run out."""
    factors, context = recovery.factors, recovery.context
    pool = no_directions(factors)
    while True:
        context.progress(f"round {recovery.rounds + 1}: {len(pool)} candidates", None)
        count = 2 * factors.rank
        with recovery.clock.stage("search"):
            starts = random_starts(factors.rank, count, None, context.generator)
            ends = recovery.settings.ends(factors, starts)
        with recovery.clock.stage("refine"):
            pool = distinct(pool.join(recovery.settings.rounded(factors, ends, context.generator)))
        recovery.starts += count
        recovery.rounds += 1
        with recovery.clock.stage("select"):
            found = recovery.greedy(pool)  # `distinct` has sorted them by zeros
        whole = not found.missing and found.batch.matches
        if whole or recovery.rounds >= recovery.settings.rounds or context.expired():
            return found
