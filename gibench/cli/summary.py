"""What a plugin is in one line: the docstring of its class, read from its source, since importing it may take long."""

from __future__ import annotations

import ast
from importlib.abc import InspectLoader

from gibench import modules
from gibench.registry import Entry

_MOST_IMPORTS = 5  # that are followed from a package to the module that defines the class


def summary(entry: Entry) -> str | None:
    """The first paragraph of the class's docstring; None where its source does not tell."""
    try:
        return _summary(entry.point.module, entry.point.attr, _MOST_IMPORTS)
    except Exception:  # finders and sources are other people's, and a list without this line is still a list
        return None


def _summary(module: str, name: str, imports: int) -> str | None:
    spec = modules.find(module)
    if not (spec and isinstance(spec.loader, InspectLoader) and imports and (source := spec.loader.get_source(module))):
        return None
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()) or None
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _summary(modules.imported(spec, node), alias.name, imports - 1)
    return None
