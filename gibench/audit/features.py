"""What attacks on the head of a network found: features of the images, see `gibench.head`.

Behind a trunk that cannot be inverted nothing reads the images themselves off exactly, but what enters the first linear
layer is to the layers after it what images are to a fully connected network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gibench.audit.attempts import EXPLAINED, Attempt, best


@dataclass(frozen=True)
class Features:
    """What attacks on a head found: candidates are rows of features, as the layer is fed them."""

    layer: str
    size: int  # numbers of a row
    attempts: Sequence[Attempt]

    @property
    def top(self) -> Attempt | None:
        return best(self.attempts)

    @property
    def explain(self) -> bool:
        """Whether the rows found reproduce the update of the layer and of those after it."""
        return self.top is not None and self.top.share < EXPLAINED

    @property
    def certified(self) -> int:
        """Rows that are certified exact: pixels have their grid for a second witness, features have the residual."""
        return self.top.certified if self.top and self.explain else 0

    @property
    def candidates(self) -> int:
        """Rows found."""
        return len(self.top.found.images) if self.top and self.top.found else 0

    @property
    def rank(self) -> int | None:
        """Images at least, by the rank of the layer's gradient."""
        return self.top.found.diagnostics.get("rank") if self.top and self.top.found else None
