"""SPEAR++ on the weight delta of several local steps, where supports are no activation patterns any more.

Over all local steps the first layer's delta is `-lr sum_t G_t^T X`: the images are the same in every step, so its rank
is still the number of images, exactly. Column i of the summed `G^T` is zero where image i leaves a neuron inactive in
*every* step that it enters. So columns have fewer zeros with every step, and their supports are unions of activation
patterns: not separable by an image. What tells a true direction there is its zeros alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..exact.purity import examine
from ..exact.recovery import Found
from ..exact.refine import Directions, distinct, no_directions, refine
from ..exact.select import independent
from ..spearpp.attack import SpearPP
from ..spearpp.mixtures import take_apart
from ..spearpp.rounding import sampled_rounding
from ..spearpp.rounds import SparseRecovery
from ..spearpp.search import merge, row_starts

_FIRST = 12  # rounds of the search that believes in patterns, as many as `spearpp` has
_AGREES = 0.95  # share of the neurons from which it is believed
_STARTS = 4  # times B, in a round
_IDLE, _VAIN, _HOPELESS = 4, 20, 8  # rounds that bring nothing new: to a whole batch, to a part, and to nothing
_TRIED = 64  # directions beside the sparsest B that may take a place in the batch
_COINCIDENCE, _CHANCE = 1.3, 3  # times B, and beside it, zeros that an arbitrary direction may have
_MIXED = 4  # times B: mixtures that are taken apart in a round, those with the most zeros


class LocalStepsSpearPP(SpearPP):
    """Looks for directions by their zeros alone where local steps have changed the activation patterns.

    It knows that the update is that of several local steps, by one client or many, and nothing of how many or how long:
    it does not simulate them. The next layer's equations are asked first, as `layer-pair` does: the activations of each
    step lie in the row space of that layer's delta, those of the first step among them, so that the equations hold as
    long as it has room for all. `spearpp` asks of a direction that its support be the activation pattern of an image,
    which holds in one step only. Its search is next, and is believed where patterns agree. Images are certified only
    where all come from the next layer, for patterns are what other certificates rest on.

    With larger or more steps nearly every neuron fires for an image at some time, and its column keeps few zeros. Of 8
    images at width 200, those that kept 29 zeros or more were found, those that kept 26 or fewer were not; the other
    images of their batch then miss a part.
    """

    adaptive: ClassVar[bool] = True

    rounds: int = Field(100, ge=1, description="rounds of search at most")

    def _rounds(self) -> Callable[[SparseRecovery], Found] | None:
        return super()._rounds() or _either


def _either(recovery: SparseRecovery) -> Found:
    """By patterns first, which sees through more noise; by zeros where the patterns do not agree with what it finds."""
    first = replace(recovery, settings=replace(recovery.settings, rounds=min(_FIRST, recovery.settings.rounds)))
    patterns = first.run()
    recovery.rounds, recovery.starts = first.rounds, first.starts
    if not patterns.missing and float(patterns.batch.agreement.mean()) > _AGREES:
        return patterns
    return max(_by_zeros(recovery), patterns, key=lambda found: found.quality)


def _by_zeros(recovery: SparseRecovery) -> Found:
    """Rounds of search until B independent directions are found and some more bring nothing new, or no more are found.

    Of those found, the B whose images' activations agree best with their supports are taken: false ones agree less,
    even after local steps. In every other round starts are orthogonal to what is found; not in all, for a false
    direction must not bar the way to two true ones.
    """
    factors, context, settings = recovery.factors, recovery.context, recovery.settings
    pool = no_directions(factors)
    idle, vain, least = 0, 0, factors.rank + 1
    while True:
        members = independent(pool.vectors, torch.arange(len(pool), device=pool.vectors.device), factors.rank)
        missing = factors.rank - len(members)
        least, vain = (missing, 0) if missing < least else (least, vain + 1)
        patience = _VAIN if len(members) else _HOPELESS
        stopped = vain >= patience or recovery.rounds >= settings.rounds or (recovery.rounds and context.expired())
        if stopped or (not missing and idle >= _IDLE):
            break
        context.progress(f"round {recovery.rounds + 1}: {len(members)} of {factors.rank} images found", None)
        known = pool.vectors[:, members] if recovery.rounds % 2 and settings.has("deflation") and missing else None
        with recovery.clock.stage("search"):
            starts = row_starts(factors.basis, _STARTS * factors.rank, known, context.generator)
            ends = merge(factors.basis, settings.ends(factors, starts))
        with recovery.clock.stage("refine"):
            found = distinct(sampled_rounding(factors, ends, context.generator).join(refine(factors, ends)))
        with recovery.clock.stage("test"):
            size = len(pool)
            pool = distinct(pool.join(_pure(recovery, found, pool)))  # those with the most zeros first
            idle = idle + 1 if len(pool) == size else 0
        recovery.starts += _STARTS * factors.rank
        recovery.rounds += 1
    with recovery.clock.stage("select"):
        return recovery.greedy(pool, _TRIED)


def _pure(recovery: SparseRecovery, found: Directions, known: Directions) -> Directions:
    """The pure directions among those found, and those that the mixtures among them hold."""
    purity = examine(recovery.factors, found)
    pure = found.select((purity.pure & _many(recovery, found)).nonzero()[:, 0])
    mixed = (~purity.pure).nonzero()[: _MIXED * recovery.factors.rank, 0]
    if not recovery.settings.has("splitting") or not len(mixed):
        return pure
    parts = take_apart(recovery.factors, found.select(mixed), purity.select(mixed), distinct(known.join(pure)))
    if parts is None or not len(parts):
        return pure
    return pure.join(parts.select((examine(recovery.factors, parts).pure & _many(recovery, parts)).nonzero()[:, 0]))


def _many(recovery: SparseRecovery, directions: Directions) -> Tensor:
    """Which directions have clearly more zeros than a free choice in B dimensions can reach, `[K]` booleans."""
    many: Tensor = directions.zeros.sum(dim=0) > _COINCIDENCE * recovery.factors.rank + _CHANCE
    return many
