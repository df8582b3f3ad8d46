"""What is run once and stored as one row: a point on the axes of its kind, with the key made of it."""

from __future__ import annotations

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar

from gibench import source
from gibench.axes import axes_of, plugins_of
from gibench.registry import GROUPS, create, find
from gibench.spec import parse_chain

if TYPE_CHECKING:
    from gibench.result import Result

_SORTED = json.JSONEncoder(sort_keys=True)  # made once: a grid has many cells
Progress = Callable[[str, float | None], None]  # what is being done, and the share done if known


@dataclass(frozen=True)
class Job(ABC):
    """Base of what is run. The axes are in canonical form, defaults included, as `gibench.axes.expand` makes them."""

    harness: ClassVar[str]  # the module that runs it

    # Seconds, of a cell for its attack alone; no part of the key, since only unfinished rows depend on it.
    timeout: float | None = field(default=None, kw_only=True)

    @cached_property
    def key(self) -> str:
        """16 hexadecimal digits of everything that decides the result: the axes, versions, source, files."""
        return _key({name: getattr(self, name) for name in axes_of(type(self))}, self._code.text)

    @property
    def versions(self) -> dict[str, str]:
        """The versions of gibench and of the distributions that bring the plugins in this job."""
        return dict(self._code.versions)

    @property
    def sources(self) -> dict[str, str]:
        """Digests of the harness, of the plugins' source and of the files that their settings name."""
        return dict(self._code.sources)

    @property
    def is_prepared_by_others(self) -> bool:
        """Whether code that is not of this distribution runs before any attack does."""
        return self._code.is_prepared_by_others

    @property
    def _specs(self) -> tuple[tuple[str, str], ...]:
        """The kind of each plugin, and its spec, or those that are composed."""
        return tuple((kind, getattr(self, name)) for name, kind in plugins_of(type(self)))

    @property
    def _code(self) -> _Code:
        return _code_of(self.harness, self._specs, tuple(sys.path))

    @abstractmethod
    def check(self, plan: bool = False) -> None:
        """Find out whether it can be prepared, so that a wrong request fails before anything runs.

        Args:
            plan: read and download nothing that does not come with its package, and build nothing.

        Raises:
            UsageError: the data cannot be had or are too few, or the model or a defense cannot take them.
        """

    @abstractmethod
    def run(self, progress: Progress) -> Result:
        """Do it. What fails in it becomes its row's status and reason (rule E9)."""


def key_of(axes: Mapping[str, Any], versions: Mapping[str, str], sources: Mapping[str, str]) -> str:
    """The key of a job of which these are told: its axes, and `Job.versions` and `Job.sources` where it was run."""
    return _key(axes, _text(versions, sources))


def _key(axes: Mapping[str, Any], code: str) -> str:
    return hashlib.sha256(f"{_SORTED.encode(axes)} {code}".encode()).hexdigest()[:16]


def _text(versions: Mapping[str, str], sources: Mapping[str, str]) -> str:
    return json.dumps([versions, sources], sort_keys=True)


class _Code:
    """What stands behind the plugins of a job, some of them composed, and behind what runs it."""

    def __init__(self, harness: str, specs: Sequence[tuple[str, str]]) -> None:
        prepared = ((kind, spec.name) for kind, text in specs for spec in parse_chain(text) if kind != "attack")
        self.is_prepared_by_others = any(find(*each).distribution != "gibench" for each in prepared)
        self.versions = {"gibench": version("gibench")}
        self.sources = {"harness": source.of_module(harness)}
        for kind, text in specs:
            self._add(kind, text)
        self.text = _text(self.versions, self.sources)

    def _add(self, kind: str, text: str) -> None:
        for spec in parse_chain(text):
            entry = find(kind, spec.name)
            self.versions[entry.distribution] = entry.version
            self.sources[f"{kind} {spec.name}"] = source.of_plugin(entry.point)
            if digest := source.of_files(create(kind, spec).files()):
                self.sources[f"files of {kind} {spec.name}"] = digest
            for key, value in spec.settings:
                if key in GROUPS:  # a setting that is called as a kind of plugin is a spec itself
                    self._add(key, value)


@lru_cache(maxsize=10_000)
def _code_of(harness: str, specs: tuple[tuple[str, str], ...], path: tuple[str, ...]) -> _Code:
    """Kept, because a grid has few of them and many cells; `path` says where plugins are looked for."""
    return _Code(harness, specs)
