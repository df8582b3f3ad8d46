"""Where modules are and what they import, found out from their source, since importing them may take long."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec


def find(module: str) -> ModuleSpec | None:
    """Where a module is; `importlib.util.find_spec` would import the packages that it is in."""
    path, spec, parts = None, None, module.split(".")
    for depth in range(1, len(parts) + 1):
        name = ".".join(parts[:depth])
        if spec and path is None:
            return None  # it would be in a module that is no package
        found = (finder.find_spec(name, path) for finder in sys.meta_path)
        if (spec := next(filter(None, found), None)) is None:
            return None
        path = spec.submodule_search_locations
    return spec


def imported(spec: ModuleSpec, node: ast.ImportFrom) -> str:
    """The full name of the module that something is imported from."""
    if not node.level:
        return node.module or ""
    package = (spec.name if spec.submodule_search_locations else spec.parent or "").split(".")
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def imports(spec: ModuleSpec, tree: ast.AST) -> Iterator[str]:
    """The names of all modules that may be imported anywhere in a module; some may be no modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = imported(spec, node)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
