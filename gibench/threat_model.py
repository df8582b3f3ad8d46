"""What the server is granted to know beside the model and the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gibench.errors import UsageError

KNOWLEDGE = ("batch_size", "labels", "local_hyperparameters", "bn_statistics", "prior", "surrogate_data")
DEFAULT_KNOWLEDGE = ("batch_size", "local_hyperparameters", "prior")


@dataclass(frozen=True)
class ThreatModel:
    """The facts, out of `KNOWLEDGE`, that the server is granted beside the model and the update (rule E1)."""

    knows: frozenset[str] = frozenset(DEFAULT_KNOWLEDGE)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `--knows`: a comma-separated list of facts, or `nothing`.

        Raises:
            UsageError: a fact that is not in `KNOWLEDGE`.
        """
        facts = [fact.strip() for fact in text.split(",")]
        if facts == ["nothing"]:
            return cls(frozenset())
        if unknown := [fact for fact in facts if fact not in KNOWLEDGE]:
            raise UsageError(f"unknown knowledge '{unknown[0]}': list some of {', '.join(KNOWLEDGE)}, or 'nothing'")
        return cls(frozenset(facts))

    def __str__(self) -> str:
        return ",".join(fact for fact in KNOWLEDGE if fact in self.knows) or "nothing"
