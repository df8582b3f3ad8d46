"""What a check finds: one line each, which names the row and says how to mend it."""

from __future__ import annotations

from typing import NamedTuple

from gibench.registry import readable
from gibench.result import Row


class Finding(NamedTuple):
    """One fault of a submission."""

    where: str  # the row, or what else it is about
    fault: str
    mend: str

    def __str__(self) -> str:
        return f"{self.where}: {self.fault}: {self.mend}"


def named(row: Row) -> str:
    """A row in a few words."""
    attack, defense = readable("attack", row.attack), readable("defense", row.defense)
    return f"cell {row.cell} ({attack} | {defense} | batch {row.batch_size} | seed {row.seed})"


def scene(row: Row) -> str:
    """What the attacks share that a row's attack is compared with, in a few words."""
    steps = f" after {row.train_steps} steps" if row.train_steps else ""
    place = f"{row.dataset} | {row.model}{steps} | batch {row.batch_size} {row.labels} | knows {row.knows}"
    return f"{place} | {readable('defense', row.defense)}"
