"""What an axis is: one thing that can be varied, declared once, as a field of a dataclass.

Options, the keys of suites, cells, their keys, stored columns and what counts as one scenario all derive from the
declarations: `gibench.cell.CellAxes` has those of attacked cells, `gibench.utility.trial.TrialAxes` those of training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, TypeVar

from gibench.registry import resolve
from gibench.spec import format_chain, parse_chain


@dataclass(frozen=True)
class Axis:
    """One axis. Its name, that of the field, is also that of the option, the key in suites and the column."""

    default: Any  # a value as people write it; None where it must be given
    help: str
    metavar: str
    kind: Any  # the type of one value as people write it
    ranges: bool = False  # whether `0-9` stands for ten values
    choices: tuple[str, ...] = ()  # the only values, where there are few
    least: int | None = None  # of numbers
    most: int = 2**63 - 1  # of numbers
    plugin: str | None = None  # the kind of plugin that the value is a spec of; a defense's composes
    canonical: Callable[[Any], str | int] = lambda value: value
    of_machine: bool = False  # whether `auto` means another value on another machine
    compared: bool = True  # whether rows must agree in it for their attacks to be compared: it is part of the scenario
    before: str | int | None = None  # the value in rows that were stored when there was no such axis
    formerly: str | None = None  # the column's name in older stores

    @property
    def defaults(self) -> list[Any]:
        """The values where none is given."""
        return [] if self.default is None else [self.default]


def axis(default: Any, help: str, metavar: str = "", kind: Any = str, **more: Any) -> Any:
    """A field that is an axis; see `Axis`."""
    plugin, choices = more.get("plugin"), more.get("choices", ())
    if plugin:
        more["canonical"] = canonical_defense if plugin == "defense" else lambda text: str(resolve(plugin, text))
    metavar = metavar or "|".join(choices) or ("SPEC" if plugin else "N")
    return field(metadata={"axis": Axis(default, help, metavar, kind, **more)})


def same_axis(owner: type, name: str, **changes: Any) -> Any:
    """A field that is an axis as `owner` declares it, but for some changes."""
    return field(metadata={"axis": replace(axes_of(owner)[name], **changes)})


def axes_of(kind: Any) -> dict[str, Axis]:
    """The axes of a dataclass by name. Their order is that of the product: the first varies slowest."""
    return _axes_of(kind)


@cache
def _axes_of(kind: Any) -> dict[str, Axis]:
    return {each.name: each.metadata["axis"] for each in fields(kind) if "axis" in each.metadata}


@cache
def plugins_of(kind: Any) -> tuple[tuple[str, str], ...]:
    """The axes whose values are specs, each with its kind of plugin."""
    return tuple((name, axis.plugin) for name, axis in _axes_of(kind).items() if axis.plugin)


def scenario_of(kind: Any) -> tuple[str, ...]:
    """The axes in which rows must agree for their attacks to be compared (rules E1 and E10)."""
    return tuple(name for name, each in axes_of(kind).items() if each.compared)


def canonical_defense(text: str) -> str:
    """A chain of defenses in canonical order, every setting included."""
    from gibench.chain import canonical_chain

    return format_chain(canonical_chain(resolve("defense", spec) for spec in parse_chain(text)))


T = TypeVar("T")


def expand(kind: type[T], values: Mapping[str, Sequence[Any]], **fixed: Any) -> list[T]:
    """The product of the axes of `kind`, each point once.

    Args:
        kind: a dataclass of axes.
        values: as people write them; an axis that is not named has its default.
        fixed: the fields of `kind` that are no axes.

    Raises:
        UsageError: a plugin or a setting that does not exist, a value out of range, a device that is not there.
    """
    canonical = {
        name: dict.fromkeys(map(each.canonical, values.get(name, each.defaults)))
        for name, each in axes_of(kind).items()
    }
    return [
        kind(**dict(zip(canonical, point, strict=True)), **fixed) for point in itertools.product(*canonical.values())
    ]
