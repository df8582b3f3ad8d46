"""Finds the directions of a batch in rounds: a search with deflated restarts, and the last ones from what is left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from gibench.attack import Context

from ..exact.assemble import Batch, assemble
from ..exact.certify import trusted
from ..exact.clock import Clock
from ..exact.linear_layer import LayerGradient, features
from ..exact.low_rank import Factors
from ..exact.purity import examine
from ..exact.refine import Directions, distinct, refine
from ..exact.select import swap
from . import objectives, optimizers
from .candidates import Pool, empty, grow, tested, untested
from .repair import repair
from .rounding import sampled_rounding
from .search import merge, minimize, row_starts
from .tail import complement, last_directions

_TRIED = 32  # candidates outside the batch that may take a place in it
_FEW, _SHARE = 20, 8  # missing images, or the part of a batch, that are looked for in the subspace the others leave
_TRUSTED = -4.0  # doubts of a direction that the last whole batch trusted


@dataclass(frozen=True)
class Search:
    """The settings of the search on the sphere."""

    iterations: int
    step: float
    rounds: int
    objective: objectives.Name = "l1"
    optimizer: optimizers.Name = "radam"
    rounding: Literal["refine", "sample"] = "refine"
    deflation: bool = True
    purity: bool = True
    splitting: bool = True
    last_images: bool = True
    certificates: bool = True

    def ends(self, factors: Factors, starts: Tensor) -> Tensor:
        """Where the search ends from each start, `[B, N]` unit vectors."""
        return minimize(factors.basis, starts, self.objective, self.optimizer, self.iterations, self.step)

    def rounded(self, factors: Factors, ends: Tensor, generator: torch.Generator) -> Directions:
        """The directions that end points `[B, N]` are rounded to."""
        return sampled_rounding(factors, ends, generator) if self.rounding == "sample" else refine(factors, ends)


@dataclass(frozen=True)
class Found:
    """The best batch so far: its directions with their tests, the images they give, how many were only filled in."""

    chosen: Pool
    batch: Batch
    missing: int

    @property
    def merit(self) -> tuple[int, float]:
        """What the best of several batches has most of."""
        return -self.missing, float(self.batch.agreement.mean())

    def trusted(self, factors: Factors) -> Tensor:
        """The images whose direction passes its own tests once the batch is complete, `[B]` booleans."""
        return trusted(factors, self.batch, self.chosen.pure) & (self.missing == 0)


@dataclass
class Hunt:
    """What is known of a gradient, and what it took to find."""

    gradient: LayerGradient  # in its row space, where a batch is assembled in a fraction of the time
    search: Search
    context: Context
    clock: Clock
    pool: Pool = field(init=False)
    pre_activations: Tensor = field(init=False)
    starts: int = 0
    rounds: int = 0

    def __post_init__(self) -> None:
        self.pool = empty(self.factors)
        self.pre_activations = features(self.factors, self.gradient.layer)

    @property
    def factors(self) -> Factors:
        """Of the gradient."""
        return self.gradient.factors

    def run(self) -> Found:
        """Look for directions until all pass their tests in one batch, or rounds or time have run out.

        Round 0 starts everywhere. Once few are missing, the known subspace of the missing images and a search deflated
        against what is found take turns; before, only that search.
        """
        known = self.pool.directions.vectors
        best: Found | None = None
        while True:
            size = len(self.pool.pure)
            self._round(known)
            self.rounds += 1
            with self.clock.stage("select"):
                found = self._select()
            if best is None or found.merit > best.merit:
                best = found
            sure = found.trusted(self.factors)
            complete = not found.missing and found.batch.matches
            done = bool(sure.all()) or (complete and (len(self.pool.pure) == size or not self.search.certificates))
            if done or self.rounds >= self.search.rounds or self.context.expired():
                return best
            known = found.chosen.directions.vectors[:, sure]

    def _round(self, known: Tensor) -> None:
        """One round of candidates; `known [B, K]` is what a whole batch has shown to be right."""
        rank = self.factors.rank
        good = self.pool.independent(self.pool.ranked(only_good=True), rank - 1)
        passed = self.pool.directions.vectors[:, good]
        count = max(known.shape[1], len(good))
        self.context.progress(f"round {self.rounds + 1}: {count} of {rank} images found", count / rank)
        few = rank - count <= max(_FEW, rank // _SHARE)
        if self.rounds % 2 and few and self.search.last_images:
            with self.clock.stage("tail"):
                candidates = self._last(passed)
                if 0 < known.shape[1] < len(good):
                    candidates = candidates.join(self._last(known))
        else:
            known = known if known.shape[1] else passed
            if not self.search.deflation:
                known = known[:, :0]
            candidates = self._search(known, 4 * (rank - known.shape[1]) if self.rounds else 2 * rank)
        with self.clock.stage("test"):
            self.pool = grow(self.pool, self.factors, self.pre_activations, candidates, self.search.splitting)
            if not self.search.purity:
                self.pool = replace(self.pool, pure=torch.ones_like(self.pool.pure))

    def _last(self, known: Tensor) -> Directions:
        return last_directions(self.factors, self.pre_activations, known, self.context.generator)

    def _search(self, known: Tensor, count: int) -> Directions:
        self.starts += count
        with self.clock.stage("search"):
            starts = row_starts(self.factors.basis, count, known, self.context.generator)
            ends = merge(self.factors.basis, self.search.ends(self.factors, starts))
        with self.clock.stage("refine"):
            return distinct(self.search.rounded(self.factors, ends, self.context.generator))

    def _select(self) -> Found:
        rank = self.factors.rank
        order = self.pool.ranked()
        members = self.pool.independent(order, rank)
        if len(members) < rank:
            return self.filled_up(self.pool.select(order.new_tensor(members)))
        others = [index for index in order.tolist() if index not in members]
        members, batch = swap(self.pool.directions, members, others[:_TRIED], self.assemble)
        batch, repaired = repair(self.factors, batch, self.assemble)
        chosen = self.pool.select(order.new_tensor(members))
        if repaired:
            purity = examine(self.factors, batch.directions)
            chosen = tested(self.factors, self.pre_activations, batch.directions, purity)
        found = Found(chosen, batch, 0)
        doubts = torch.where(found.trusted(self.factors), _TRUSTED, chosen.doubts.clamp_min(0) + 1)
        self.pool = self.pool.without(members).join(replace(chosen, doubts=doubts))
        return found

    def assemble(self, directions: Directions) -> Batch:
        """The batch that B independent directions make."""
        return assemble(self.gradient, directions)

    def filled_up(self, chosen: Pool) -> Found:
        """The batch of fewer than B candidates and their complement."""
        rest = complement(chosen.directions.vectors)
        unknown = torch.zeros(len(self.factors.basis), rest.shape[1], dtype=torch.bool, device=rest.device)
        chosen = chosen.join(untested(Directions(rest, unknown)))
        return Found(chosen, self.assemble(chosen.directions), rest.shape[1])
