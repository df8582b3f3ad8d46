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

from gibench import defaults
from gibench.errors import GibenchError, PluginError, UsageError
from gibench.spec import Spec, format_chain, parse, parse_chain
from gibench.text import RENAME, is_storable, one_line

if TYPE_CHECKING:
    from gibench.plugin import Plugin

_OURS = "gibench"  # the distribution whose names nobody can take
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


def clash(same: Sequence[Entry]) -> str:
    """What comes of entries of one name, in words: ours is the one that is meant, whatever else is installed."""
    kind, name = same[0].kind, same[0].name
    others = [entry.source for entry in same if entry.distribution != _OURS]
    if len(others) < len(same):
        return f"the {kind} '{name}' of {' and '.join(others)} is hidden by gibench's own: give it another name"
    return f"{kind} '{name}' is registered by {' and '.join(others)}: uninstall one of them"


def find(kind: str, name: str) -> Entry:
    """The one plugin of that name.

    Raises:
        UsageError: there is none (the message says what exists), or two distributions register it.
    """
    listed = entries(kind)
    same = [entry for entry in listed if entry.name == name]
    ours = [entry for entry in same if entry.distribution == _OURS]
    if len(ours or same) > 1:
        raise UsageError(clash(same))
    if same:
        return (ours or same)[0]
    known = dict.fromkeys(entry.name for entry in listed)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean '{close[0]}'?)" if close else ""
    raise UsageError(
        f"unknown {kind} '{name}'{hint}: there are {', '.join(known) or 'none'}; your own is found once its package "
        f'names it under [project.entry-points."{GROUPS[kind]}"] and is installed, again after that table was edited'
    )


def load(kind: str, name: str) -> type[Plugin]:
    """Import a plugin's class.

    Raises:
        UsageError: unknown name, an import that fails, or an object that is no plugin of this kind.
    """
    return load_entry(find(kind, name))


def load_entry(entry: Entry) -> type[Plugin]:
    """The same for one of several entries of a name.

    Raises:
        UsageError: see `load`; or the name means another one.
    """
    kind, name = entry.kind, entry.name
    if find(kind, name) != entry:
        raise UsageError(clash([each for each in entries(kind) if each.name == name]))
    whose = f"{kind} '{name}' of {entry.source}"
    try:
        loaded = entry.point.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a plugin's import raises, SystemExit too, is that plugin's failure
        if isinstance(error, GibenchError):
            raise PluginError(f"{whose} cannot be used: {one_line(error)}") from error
        cause = ": ".join(filter(None, (type(error).__name__, one_line(error))))
        mend = "reinstall it" if isinstance(error, ImportError | AttributeError) else "mend it"
        raise UsageError(f"{whose} cannot be imported: {cause}: {mend}") from error
    base = base_class(kind)
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise PluginError(f"{whose} is not a subclass of {base.__module__}.{base.__name__}")
    if fault := loaded.fault():
        raise PluginError(f"{whose} {fault}")
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
    plugin = create(kind, spec)
    plugin.check_settings(f"{kind} '{spec.name}'")
    resolved = Spec.of(spec.name, plugin.settings())
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
    """The same spec without the settings that have their default value, for people to read.

    The settings of stored specs are called as they are now.
    """
    spec = parse(spec) if isinstance(spec, str) else spec
    if not spec.settings:
        return spec  # without importing it
    if (known := _known_defaults(kind, spec)) is not None:
        given = {key: value for key, value in spec.settings if known[key] != value}
    else:
        plugin = load(kind, spec.name)
        settings = plugin.renamed(dict(spec.settings))
        needed = {key for key, field in plugin.model_fields.items() if field.is_required()}
        theirs = plugin.from_settings(spec.name, {key: settings[key] for key in needed & settings.keys()}).settings()
        given = {key: value for key, value in settings.items() if key in needed or theirs.get(key) != value}
    # A setting that is called as a kind of plugin is a spec itself.
    return Spec.of(
        spec.name, {key: str(shorten(key, value)) if key in GROUPS else value for key, value in given.items()}
    )


def _known_defaults(kind: str, spec: Spec) -> Mapping[str, str] | None:
    """The defaults of a plugin of ours, without importing it; None where it is to be asked itself.

    It has been imported already, or the spec has settings that it has not now and may have renamed.
    """
    entry = find(kind, spec.name)
    if entry.distribution != _OURS or _loaded(entry) is not None:
        return None
    found = defaults.kept()[kind].get(spec.name)
    return found if found is not None and all(key in found for key, _ in spec.settings) else None


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
