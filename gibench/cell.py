"""One cell of the benchmark: everything that decides its result, in canonical form, and the key made of it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from gibench import device
from gibench.chain import canonical_chain
from gibench.observation import ThreatModel
from gibench.registry import find, resolve
from gibench.spec import format_chain, parse, parse_chain


@dataclass(frozen=True)
class Cell:
    """What is run once. Specs are canonical and resolved, defaults included, as `expand` makes them."""

    attack: str
    defense: str
    dataset: str
    model: str
    train_steps: int
    batch_size: int  # per client
    labels: str  # iid, unique or same
    knows: str  # the threat model's canonical text
    seed: int
    device: str  # cpu or cuda, as found here
    dtype: str  # float32 or float64
    timeout: float | None = None  # seconds for the attack; no part of the key, since only unfinished rows depend on it

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of everything that decides the result, the versions of the code included."""
        identity = {**asdict(self), "versions": self.versions}
        del identity["timeout"]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def versions(self) -> dict[str, str]:
        """The versions of gibench and of the distributions that bring the plugins in this cell."""
        plugins = [("attack", self.attack), ("dataset", self.dataset), ("model", self.model)]
        names = [(kind, parse(text).name) for kind, text in plugins]
        names += [("defense", spec.name) for spec in parse_chain(self.defense)]
        found = [find(kind, name) for kind, name in names]
        return {"gibench": version("gibench")} | {entry.distribution: entry.version for entry in found}


def canonical_defense(text: str) -> str:
    """A chain of defenses in canonical order, every setting included."""
    return format_chain(canonical_chain(resolve("defense", spec) for spec in parse_chain(text)))


# How the text of an axis becomes canonical; the order is that of the product, the first varying slowest, so that
# one batch and one model meet every defense and attack before the next are made.
_CANONICAL: Mapping[str, Callable[[Any], Any]] = {
    "seed": int,
    "dataset": lambda text: str(resolve("dataset", text)),
    "model": lambda text: str(resolve("model", text)),
    "train_steps": int,
    "dtype": str,
    "device": lambda name: device.choose(name).type,
    "batch_size": int,
    "labels": str,
    "knows": lambda text: str(ThreatModel.parse(text)),
    "defense": canonical_defense,
    "attack": lambda text: str(resolve("attack", text)),
}


def expand(axes: Mapping[str, Sequence[Any]], timeout: float | None = None) -> list[Cell]:
    """The product of the axes, each cell once.

    Args:
        axes: values for every field of `Cell` but `timeout`, specs as people write them.
        timeout: seconds for the attack of each cell.

    Raises:
        UsageError: a plugin or a setting that does not exist, a value out of range, a device that is not there.
    """
    values = {axis: dict.fromkeys(map(canonical, axes[axis])) for axis, canonical in _CANONICAL.items()}
    return [
        Cell(**dict(zip(values, combination, strict=True)), timeout=timeout)
        for combination in itertools.product(*values.values())
    ]
