"""Finds the directions of a batch in rounds: a search with deflated restarts, and the last ones from what is left."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gibench.attack import Context

from ..linear_layer import Factors, InputLayer
from .assemble import Batch, assemble
from .clock import Clock
from .pool import Pool, empty, grow
from .refine import Directions, refine
from .search import minimize_l1, random_starts
from .separate import features
from .tail import complement, last_directions


@dataclass(frozen=True)
class Search:
    """The settings of the search on the sphere."""

    iterations: int
    step: float
    rounds: int


@dataclass(frozen=True)
class Found:
    """The best batch so far: its directions with their tests, the images they give, and how many were only filled in."""

    chosen: Pool
    batch: Batch
    missing: int

    @property
    def matches(self) -> bool:
        """Whether lambda of the whole batch is 1."""
        return not self.missing and bool((self.batch.agree | ~self.batch.votes).all())


@dataclass
class Hunt:
    """What is known of a gradient, and what it took to find."""

    factors: Factors
    layer: InputLayer
    weight_gradient: Tensor  # [m, n]
    search: Search
    context: Context
    clock: Clock
    pool: Pool = field(init=False)
    pre_activations: Tensor = field(init=False)
    starts: int = 0
    rounds: int = 0

    def __post_init__(self) -> None:
        self.pool = empty(self.factors)
        self.pre_activations = features(self.factors, self.layer)

    def run(self) -> Found:
        """Look for directions until lambda of the batch is 1 by pure directions, or rounds or time have run out.

        Round 0 starts everywhere. Then the known subspace of the missing images and a search deflated against what is
        found take turns.
        """
        while True:
            known = len(self.pool.pure)
            self._round()
            self.rounds += 1
            with self.clock.stage("assemble"):
                found = self.filled_up(self.pool.select(self.pool.best(self.factors.rank)))
            settled = bool(found.chosen.pure.all()) or len(self.pool.pure) == known
            if (found.matches and settled) or self.rounds >= self.search.rounds or self.context.expired():
                return found

    def _round(self) -> None:
        found = self.pool.best(self.factors.rank, only_good=True)
        missing = self.factors.rank - len(found)
        share = len(found) / self.factors.rank
        self.context.progress(f"round {self.rounds + 1}: {len(found)} of {self.factors.rank} images found", share)
        vectors = self.pool.directions.vectors[:, found]
        if self.rounds % 2 and len(found) and missing:
            with self.clock.stage("tail"):
                candidates = last_directions(self.factors, self.pre_activations, vectors, self.context.generator)
        else:
            candidates = self._search(vectors, missing)
        with self.clock.stage("test"):
            self.pool = grow(self.pool, self.factors, self.pre_activations, candidates, self.context.generator)

    def _search(self, found: Tensor, missing: int) -> Directions:
        count = 4 * max(missing, 1) if self.rounds else 2 * self.factors.rank
        self.starts += count
        starts = random_starts(self.factors.rank, count, found, self.context.generator)
        with self.clock.stage("search"):
            ends = minimize_l1(self.factors.basis, starts, self.search.iterations, self.search.step)
        with self.clock.stage("refine"):
            return refine(self.factors, ends)

    def filled_up(self, chosen: Pool) -> Found:
        """The batch of those candidates and, where they are fewer than B, of their complement."""
        missing = self.factors.rank - len(chosen.pure)
        if missing:
            rest = complement(chosen.directions.vectors)
            unknown = torch.zeros(len(self.factors.basis), missing, dtype=torch.bool, device=rest.device)
            chosen = chosen.join(Pool(Directions(rest, unknown), unknown[0], chosen.separable.new_zeros(missing)))
        batch = assemble(self.factors, self.layer, self.weight_gradient, chosen.directions)
        return Found(chosen, batch, missing)
