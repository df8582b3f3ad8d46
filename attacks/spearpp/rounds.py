"""Finds the directions of a batch in rounds: a search with deflated restarts, and the last ones from what is left."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from ..exact.low_rank import Factors
from ..exact.purity import examine
from ..exact.recovery import Found, Recovery
from ..exact.refine import Directions, distinct, refine
from ..exact.select import greedy
from . import objectives, optimizers
from .candidates import Candidates, grow, no_candidates, tested
from .last_images import last_directions
from .noise import correct_by_images
from .rounding import sampled_rounding
from .search import merge, minimize, row_starts

Part = Literal["next-layer", "deflation", "purity", "splitting", "last-images", "certificates"]
PARTS: tuple[Part, ...] = get_args(Part)  # of `spearpp`, each of which can be left out

_TRIED = 32  # candidates outside the batch that may take a place in it
_FEW, _SHARE = 20, 8  # missing images, or the part of a batch, that are looked for in the subspace the others leave
_TRUSTED = -4.0  # penalty of a direction that the last whole batch trusted


@dataclass(frozen=True)
class Settings:
    """The settings of the search on the sphere."""

    iterations: int
    step: float
    rounds: int
    objective: objectives.Name = "l1"
    optimizer: optimizers.Name = "radam"
    rounding: Literal["refine", "sample"] = "refine"
    without: frozenset[Part] = frozenset()

    def has(self, part: Part) -> bool:
        """Whether a part is not left out."""
        return part not in self.without

    def ends(self, factors: Factors, starts: Tensor) -> Tensor:
        """Where the search ends from each start, `[B, N]` unit vectors."""
        return minimize(factors.basis, starts, self.objective, self.optimizer, self.iterations, self.step)

    def rounded(self, factors: Factors, ends: Tensor, generator: torch.Generator) -> Directions:
        """The directions that end points `[B, N]` are rounded to."""
        return sampled_rounding(factors, ends, generator) if self.rounding == "sample" else refine(factors, ends)


@dataclass
class SparseRecovery(Recovery):
    """A recovery by sparse columns: what is known of a gradient, and the candidates so far."""

    settings: Settings = field(kw_only=True)
    candidates: Candidates = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.candidates = no_candidates(self.factors)

    def run(self) -> Found:
        """Look for directions until all pass their tests in one batch, or rounds or time have run out.

        Round 0 starts everywhere. Once few are missing, the known subspace of the missing images and a search deflated
        against what is found take turns; before, only that search.
        """
        known = self.candidates.directions.vectors
        best: Found | None = None
        while True:
            size = len(self.candidates.pure)
            self._round(known)
            self.rounds += 1
            with self.clock.stage("select"):
                found = self._select()
            if best is None or found.quality > best.quality:
                best = found
            sure = found.trusted(self.factors)
            complete = not found.missing and found.batch.matches
            last = len(self.candidates.pure) == size or not self.settings.has("certificates")
            done = bool(sure.all()) or (complete and last)
            if done or self.rounds >= self.settings.rounds or self.context.expired():
                return best
            known = found.batch.directions.vectors[:, sure]

    def _round(self, known: Tensor) -> None:
        """One round of candidates; `known [B, K]` is what a whole batch has shown to be right."""
        rank = self.factors.rank
        good = self.candidates.independent(self.candidates.ranked(only_good=True), rank - 1)
        passed = self.candidates.directions.vectors[:, good]
        count = max(known.shape[1], len(good))
        self.context.progress(f"round {self.rounds + 1}: {count} of {rank} images found", count / rank)
        few = rank - count <= max(_FEW, rank // _SHARE)
        if self.rounds % 2 and few and self.settings.has("last-images"):
            with self.clock.stage("last images"):
                new = self._last(passed)
                if 0 < known.shape[1] < len(good):
                    new = new.join(self._last(known))
        else:
            known = known if known.shape[1] else passed
            if not self.settings.has("deflation"):
                known = known[:, :0]
            new = self._search(known, 4 * (rank - known.shape[1]) if self.rounds else 2 * rank)
        with self.clock.stage("test"):
            splitting = self.settings.has("splitting")
            self.candidates = grow(self.candidates, self.factors, self.pre_activations, new, splitting)
            if not self.settings.has("purity"):
                self.candidates = replace(self.candidates, pure=torch.ones_like(self.candidates.pure))

    def _last(self, known: Tensor) -> Directions:
        return last_directions(self.factors, self.pre_activations, known, self.context.generator)

    def _search(self, known: Tensor, count: int) -> Directions:
        self.starts += count
        with self.clock.stage("search"):
            starts = row_starts(self.factors.basis, count, known, self.context.generator)
            ends = merge(self.factors.basis, self.settings.ends(self.factors, starts))
        with self.clock.stage("refine"):
            return distinct(self.settings.rounded(self.factors, ends, self.context.generator))

    def _select(self) -> Found:
        order = self.candidates.ranked()
        among, within = self.candidates.directions, self.candidates.within
        members, batch = greedy(among, order, self.assemble, _TRIED, within)
        chosen = self.candidates.select(order.new_tensor(members))
        if batch is None:
            return self.filled_up(chosen.directions, chosen.pure)
        batch, corrected = correct_by_images(self.factors, batch, self.assemble)
        if corrected:
            purity = examine(self.factors, batch.directions)
            chosen = tested(self.factors, self.pre_activations, batch.directions, purity)
        found = Found(batch, chosen.pure, 0)
        penalty = torch.where(found.trusted(self.factors), _TRUSTED, chosen.penalty.clamp_min(0) + 1)
        self.candidates = self.candidates.without(members).join(replace(chosen, penalty=penalty))
        return found
