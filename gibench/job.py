"""What is run once and stored as one row: a point on the axes of its kind, with the key made of it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING

from gibench.axes import axes_of
from gibench.registry import Entry, find
from gibench.spec import parse_chain

if TYPE_CHECKING:
    from gibench.result import Result

Progress = Callable[[str, float | None], None]  # what is being done, and the share done if known


@cache
def _own_version() -> str:
    return version("gibench")


@dataclass(frozen=True)
class Job(ABC):
    """Base of what is run. The axes are in canonical form, defaults included, as `gibench.axes.expand` makes them."""

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of everything that decides the result, the versions of the code included."""
        identity = {name: getattr(self, name) for name in axes_of(type(self))} | {"versions": self.versions}
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def versions(self) -> dict[str, str]:
        """The versions of gibench and of the distributions that bring the plugins in this job."""
        return {"gibench": _own_version()} | {entry.distribution: entry.version for entry in self._plugins()}

    def _plugins(self) -> list[Entry]:
        kinds = {name: each.plugin for name, each in axes_of(type(self)).items() if each.plugin}
        return [find(kind, spec.name) for name, kind in kinds.items() for spec in parse_chain(getattr(self, name))]

    @abstractmethod
    def check(self) -> None:
        """Find out whether it can be prepared, so that a wrong request fails before anything runs.

        Raises:
            UsageError: the data cannot be had or are too few, or the model or a defense cannot take them.
        """

    @abstractmethod
    def run(self, progress: Progress) -> Result:
        """Do it. What fails in it becomes its row's status and reason (rule E9)."""
