"""What a plugin is in one line: the docstring of its class, read from its source, since importing it may take long."""

from __future__ import annotations

import ast
import sys
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec

from gibench.registry import Entry

_MOST_IMPORTS = 5  # that are followed from a package to the module that defines the class


def summary(entry: Entry) -> str | None:
    """The first paragraph of the class's docstring; None where its source does not tell."""
    try:
        return _summary(entry.point.module, entry.point.attr, _MOST_IMPORTS)
    except Exception:  # finders and sources are other people's, and a list without this line is still a list
        return None


def _summary(module: str, name: str, imports: int) -> str | None:
    spec = _find(module)
    if not (spec and isinstance(spec.loader, InspectLoader) and imports and (source := spec.loader.get_source(module))):
        return None
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()) or None
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _summary(_imported(spec, node), alias.name, imports - 1)
    return None


def _find(module: str) -> ModuleSpec | None:
    """Where a module is; `importlib.util.find_spec` would import the packages that it is in."""
    path, spec, parts = None, None, module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        found = (finder.find_spec(name, path) for finder in sys.meta_path)
        if (spec := next(filter(None, found), None)) is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _imported(spec: ModuleSpec, node: ast.ImportFrom) -> str:
    """The full name of the module that something is imported from."""
    if not node.level:
        return node.module or ""
    package = (spec.name if spec.submodule_search_locations else spec.parent or "").split(".")
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
