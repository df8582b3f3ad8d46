"""Finds plugins by entry points, ours and everybody else's by the same groups, and builds them from specs.

Names are listed from package metadata alone; nothing is imported before it is selected.
"""

from __future__ import annotations

import difflib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from gibench.errors import UsageError
from gibench.spec import Spec, format_chain, parse, parse_chain
from gibench.text import RENAME, is_storable, one_line

if TYPE_CHECKING:
    from gibench.plugin import Plugin

GROUPS = {kind: f"gibench.{kind}s" for kind in ("attack", "defense", "dataset", "model")}


@dataclass(frozen=True, order=True)
class Entry:
    """One registered plugin: what it is called and which distribution brings it."""

    kind: str
    name: str
    distribution: str
    version: str
    point: EntryPoint = field(compare=False)

    @property
    def source(self) -> str:
        return f"{self.distribution} {self.version}"

    def problem(self) -> str | None:
        """What metadata alone shows to be wrong (its package is not installed), or None."""
        package = self.point.module.partition(".")[0]
        return None if importlib.util.find_spec(package) else f"its package '{package}' is not installed"


def entries(kind: str) -> list[Entry]:
    """All registered plugins of one kind, sorted by name; a name may stand twice (see `find`)."""
    return list(_entries(tuple(sys.path))[kind])


@lru_cache
def _entries(path: tuple[str, ...]) -> Mapping[str, Sequence[Entry]]:
    """By kind; kept, because the metadata of all that is installed takes as long to read as a small cell to run."""
    points = entry_points()
    return {kind: sorted(map(partial(_entry, kind), points.select(group=group))) for kind, group in GROUPS.items()}


def _entry(kind: str, point: EntryPoint) -> Entry:
    name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "?")
    return Entry(kind, point.name, name, version, point)


def clashes(listed: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Names that more than one distribution registers, with their entries."""
    by_name: dict[str, list[Entry]] = {}
    for entry in listed:
        by_name.setdefault(entry.name, []).append(entry)
    return {name: same for name, same in by_name.items() if len(same) > 1}


def find(kind: str, name: str) -> Entry:
    """The one plugin of that name.

    Raises:
        UsageError: there is none (the message says what exists), or two distributions register it.
    """
    listed = entries(kind)
    if clash := clashes(listed).get(name):
        raise UsageError(
            f"{kind} '{name}' is registered by {' and '.join(entry.source for entry in clash)}: uninstall one of them"
        )
    for entry in listed:
        if entry.name == name:
            return entry
    known = [entry.name for entry in listed]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise UsageError(f"unknown {kind} '{name}'{hint}: there are {', '.join(known) or 'none'}")


def load(kind: str, name: str) -> type[Plugin]:
    """Import a plugin's class.

    Raises:
        UsageError: unknown name, an import that fails, or an object that is no plugin of this kind.
    """
    entry = find(kind, name)
    try:
        loaded = entry.point.load()
    except Exception as error:  # whatever a plugin's import raises is that plugin's failure, told with its cause
        cause = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"{kind} '{name}' of {entry.source} cannot be imported: {cause}: reinstall it") from error
    base = base_class(kind)
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise UsageError(f"{kind} '{name}' of {entry.source} is not a subclass of {base.__module__}.{base.__name__}")
    return loaded


def base_class(kind: str) -> type[Plugin]:
    """The contract that a plugin of this kind fulfils."""
    from gibench.attack import Attack
    from gibench.datasets.base import Dataset
    from gibench.defense import Defense
    from gibench.models.base import Model

    classes: dict[str, type[Plugin]] = {"attack": Attack, "defense": Defense, "dataset": Dataset, "model": Model}
    return classes[kind]


def create(kind: str, spec: Spec | str) -> Plugin:
    """Build the plugin that a spec names, its settings validated.

    Raises:
        UsageError: see `load` and `Plugin.from_settings`; or a setting cannot be stored.
    """
    spec = parse(spec) if isinstance(spec, str) else spec
    _check_storable(kind, spec)
    return load(kind, spec.name).from_settings(f"{kind} '{spec.name}'", dict(spec.settings))


def resolve(kind: str, spec: Spec | str) -> Spec:
    """The canonical spec with every setting, defaults included; resolving it again changes nothing.

    Raises:
        UsageError: see `create`; or a setting cannot be stored.
    """
    spec = parse(spec) if isinstance(spec, str) else spec
    resolved = Spec.of(spec.name, create(kind, spec).settings())
    _check_storable(kind, resolved)  # what a plugin made of its settings, such as a path from the working folder
    return resolved


def _check_storable(kind: str, spec: Spec) -> None:
    for key, value in spec.settings:
        if not is_storable(value):
            raise UsageError(f"{kind} '{spec.name}': {key}={value!r} holds bytes that are no UTF-8: {RENAME}")


def spec_of(kind: str, plugin: Plugin) -> Spec:
    """The canonical spec of a plugin, however it was built; under its class's name where none is registered for it."""
    names = (entry.name for entry in entries(kind) if _loaded(entry) is type(plugin))
    return Spec.of(next(names, type(plugin).__name__), plugin.settings())


def _loaded(entry: Entry) -> object:
    """What an entry point names if its module has been imported, else None."""
    found: object = sys.modules.get(entry.point.module)
    for name in entry.point.attr.split("."):
        found = getattr(found, name, None)
    return found


def shorten(kind: str, spec: Spec | str) -> Spec:
    """The same spec without the settings that have their default value, for people to read."""
    spec = parse(spec) if isinstance(spec, str) else spec
    if not spec.settings:
        return spec  # without importing it
    defaults = load(kind, spec.name).from_settings(spec.name, {}).settings()
    given = {key: value for key, value in spec.settings if defaults.get(key) != value}
    # A setting that is called as a kind of plugin is a spec itself.
    return Spec.of(
        spec.name, {key: str(shorten(key, value)) if key in GROUPS else value for key, value in given.items()}
    )


def readable(kind: str, text: str) -> str:
    """One spec, or composed ones, shortened; as they are where a plugin is not installed any more."""
    return _readable(kind, text, tuple(sys.path))


@lru_cache(maxsize=10_000)
def _readable(kind: str, text: str, path: tuple[str, ...]) -> str:
    """Kept, because a grid has few specs and many cells."""
    try:
        return format_chain(shorten(kind, spec) for spec in parse_chain(text))
    except UsageError:
        return text
