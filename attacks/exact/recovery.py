"""One recovery of a batch: what is known of the gradient, what it took to find, and what was found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gibench.attack import Context
from gibench.device import synchronize

from .assemble import Batch, assemble
from .certify import trusted
from .linear_layer import LayerGradient, features
from .low_rank import Factors
from .refine import Directions
from .select import filled_up, greedy


class Clock:
    """Adds up the seconds of each named stage, on a wall clock, device-synchronised."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the body's seconds to a stage."""
        synchronize(self.device)
        start = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Found:
    """The best batch so far, which of its directions pass the test of their kind, and how many were only filled in."""

    batch: Batch
    pure: Tensor  # [B]
    missing: int

    @property
    def quality(self) -> tuple[int, float]:
        """What the best of several batches has most of."""
        return -self.missing, float(self.batch.agreement.mean())

    def trusted(self, factors: Factors) -> Tensor:
        """The images whose direction passes its own tests once the batch is complete, `[B]` booleans."""
        return trusted(factors, self.batch, self.pure) & (self.missing == 0)


@dataclass
class Recovery:
    """What is known of a gradient, and what it took to find."""

    gradient: LayerGradient  # in its row space, where a batch is assembled in a fraction of the time
    context: Context
    clock: Clock
    pre_activations: Tensor = field(init=False)  # F [m, B], see `linear_layer.features`
    starts: int = 0
    rounds: int = 0

    def __post_init__(self) -> None:
        self.pre_activations = features(self.factors, self.gradient.layer)

    @property
    def factors(self) -> Factors:
        """Of the gradient."""
        return self.gradient.factors

    def assemble(self, directions: Directions) -> Batch:
        """The batch that B independent directions make."""
        return assemble(self.gradient, directions)

    def filled_up(self, chosen: Directions, pure: Tensor | None = None) -> Found:
        """The batch of fewer than B directions, `pure [K]` if they are tested, and their complement."""
        directions = filled_up(self.factors, chosen)
        tested = torch.zeros(len(directions), dtype=torch.bool, device=directions.vectors.device)
        if pure is not None:
            tested[: len(pure)] = pure
        return Found(self.assemble(directions), tested, len(directions) - len(chosen))

    def greedy(self, candidates: Directions, tried: int | None = None) -> Found:
        """The batch that the first candidates make, untested; see `select.greedy`."""
        order = torch.arange(len(candidates), device=candidates.vectors.device)
        members, batch = greedy(candidates, order, self.assemble, tried)
        if batch is None:
            return self.filled_up(candidates.select(order[members]))
        return Found(batch, torch.zeros_like(batch.matching, dtype=torch.bool), 0)
