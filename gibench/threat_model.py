"""What the server is granted to know beside the model and the update."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self, cast, get_args

from gibench.errors import UsageError

KNOWLEDGE = ("batch_size", "labels", "local_hyperparameters", "bn_statistics", "prior", "surrogate_data")
DEFAULT_KNOWLEDGE = ("batch_size", "local_hyperparameters", "prior")


# How the server comes to BatchNorm's statistics: told those of the batch, from the buffers that clients send, or of the
# network that it sent itself.
BatchNormSource = Literal["exact", "inferred", "running"]


@dataclass(frozen=True)
class ThreatModel:
    """The facts, out of `KNOWLEDGE`, that the server is granted beside the model and the update (rule E1)."""

    knows: frozenset[str] = frozenset(DEFAULT_KNOWLEDGE)
    bn_source: BatchNormSource = "exact"  # where `bn_statistics` is among the facts

    @property
    def bn_statistics(self) -> Literal[BatchNormSource, "none"]:
        """Which statistics of BatchNorm are granted."""
        return self.bn_source if "bn_statistics" in self.knows else "none"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `--knows`: a comma-separated list of facts, or `nothing`.

        `bn_statistics` stands for `bn_statistics=exact`; `inferred`, `running` and `none` are the others.

        Raises:
            UsageError: a fact that is not in `KNOWLEDGE`, statistics that there are not, or of two kinds.
        """
        facts = [fact.strip() for fact in text.split(",")]
        if facts == ["nothing"]:
            return cls(frozenset())
        sources = {_source(fact) for fact in facts if _is_bn_statistics(fact)}
        if len(sources) > 1:
            raise UsageError(f"bn_statistics is told to be {' and '.join(sorted(sources))}: keep one of them")
        facts = [fact for fact in facts if not _is_bn_statistics(fact)]
        if unknown := [fact for fact in facts if fact not in KNOWLEDGE]:
            raise UsageError(f"unknown knowledge '{unknown[0]}': list some of {', '.join(KNOWLEDGE)}, or 'nothing'")
        if sources in (set(), {"none"}):
            return cls(frozenset(facts))
        return cls(frozenset([*facts, "bn_statistics"]), cast(BatchNormSource, sources.pop()))

    def __str__(self) -> str:
        return ",".join(self._word(fact) for fact in KNOWLEDGE if fact in self.knows) or "nothing"

    def _word(self, fact: str) -> str:
        """The fact; exact statistics are those that rows had before there were others."""
        return f"{fact}={self.bn_source}" if fact == "bn_statistics" and self.bn_source != "exact" else fact


def _is_bn_statistics(fact: str) -> bool:
    return fact.partition("=")[0] == "bn_statistics"


def _source(fact: str) -> str:
    """Of the fact `bn_statistics`, with its source or without."""
    source = fact.partition("=")[2] if "=" in fact else "exact"
    if source not in (*get_args(BatchNormSource), "none"):
        raise UsageError(f"bn_statistics is one of {', '.join(get_args(BatchNormSource))} and none, not '{source}'")
    return source
