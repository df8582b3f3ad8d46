"""What a plugin says of itself, once imported: settings, requirements, references, or why it cannot be imported."""

from __future__ import annotations

import inspect
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from gibench.cli.console import say
from gibench.errors import UsageError
from gibench.plugin import Plugin, format_value
from gibench.registry import Entry, load_entry

_FACTS = ("requires", "references", "adaptive", "oracle", "control", "budget", "hooks")  # that some kinds have


def describe(entry: Entry) -> dict[str, Any]:
    """One plugin as JSON: `error` is null, or says why the rest is missing."""
    description: dict[str, Any] = {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "error": None,
    }
    try:
        plugin = load_entry(entry)
    except UsageError as error:
        return description | {"error": str(error)}
    default = plugin.model_construct()  # what depends on settings is that of their defaults
    facts = {name: _plain(_asked(default, name)) for name in _FACTS if hasattr(plugin, name)}
    return description | {"description": inspect.getdoc(plugin) or ""} | facts | {"settings": _settings(plugin)}


def _asked(plugin: Plugin, fact: str) -> Any:
    """What a plugin says of itself; a property may need a setting that has no default."""
    try:
        return getattr(plugin, fact)
    except Exception as error:
        return f"unknown ({type(error).__name__})"


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else list(value) if isinstance(value, tuple) else value


def _settings(plugin: type[Plugin]) -> dict[str, dict[str, Any]]:
    """Each setting's type, its default as a spec writes it (null where one must be given) and what it does."""
    return {
        name: {
            "type": _type_text(field.annotation) + _bounds(field.metadata),
            "default": None if field.is_required() else format_value(field.get_default(call_default_factory=True)),
            "description": field.description or "",
        }
        for name, field in plugin.model_fields.items()
    }


def _type_text(annotation: Any) -> str:
    """A type in words: `float`, `int | none`, `sphere | paper`."""
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return " | ".join(map(_type_text, get_args(annotation)))
    return "none" if annotation is NoneType else inspect.formatannotation(annotation).rpartition(".")[2]


def _bounds(metadata: list[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    return "".join(
        f" {sign} {getattr(item, name)}" for item in metadata for name, sign in signs.items() if hasattr(item, name)
    )


def print_description(description: dict[str, Any]) -> None:
    """One plugin for people to read."""
    say(f"{description['kind']} {description['name']} ({description['distribution']} {description['version']})")
    if description["error"]:
        say(f"  error: {description['error']}")
        return
    for line in description["description"].splitlines():
        say(f"  {line}".rstrip())
    for name in _FACTS:
        if value := description.get(name):
            say(f"  {name}: {'; '.join(value) if isinstance(value, list) else value}")
    say("  settings:" if description["settings"] else "  settings: none")
    for name, setting in description["settings"].items():
        default = "(to be given)" if setting["default"] is None else setting["default"]
        say(f"    {name}={default}  [{setting['type']}]  {setting['description']}".rstrip())
