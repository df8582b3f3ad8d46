"""Digests of what decides a result beside names and settings: source, and the files that settings name.

They are part of a cell's key, so that what is stored of a plugin that was edited, or of a folder whose images were
changed, is not taken for what it would give now.
"""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

from gibench import modules

_OURS = "gibench"
_WEIGHTS = ".safetensors"  # the suffix of ours
_CHUNK = 2**20  # bytes


def of_plugin(point: EntryPoint) -> str:
    """Of the source of a plugin.

    Of somebody else's that is every file of the packages that its distribution brings, data and weights included. Of
    ours it is the module and what it imports of gibench, so that an edited attack leaves the rows of the others.
    """
    package = point.module.partition(".")[0]
    if package == _OURS:
        return of_module(point.module)
    listed = (point.dist.read_text("top_level.txt") or "") if point.dist else ""
    return _of_packages(tuple(sorted({package, *listed.split()})), tuple(sys.path))


@cache
def _of_packages(names: tuple[str, ...], path: tuple[str, ...]) -> str:
    return _digest(entry for name in names for entry in _package(name))


@cache
def of_module(module: str) -> str:
    """Of a module of ours, what it imports of gibench wherever that stands, and the weights beside any of these."""
    return _digest(_closure(module))


def closure(module: str) -> set[str]:
    """The modules that `of_module` is of."""
    return {name for name, _ in _closure(module) if not name.endswith(_WEIGHTS)}


def of_files(paths: Iterable[Path]) -> str | None:
    """Of the contents of files and of all files in folders; None where none are named."""
    named = sorted(paths)
    if not named:
        return None
    root = os.path.commonpath([path if path.is_dir() else path.parent for path in named])
    files = [file for path in named for file in (_files(path) if path.is_dir() else [path])]
    return _digest((os.path.relpath(file, root), file) for file in files)


def _closure(module: str) -> list[tuple[str, Path]]:
    found: dict[str, Path] = {}
    waiting, seen = [module], {_OURS}  # the package itself gives what Python's users call, and decides nothing
    while waiting:
        name = waiting.pop()
        parent = name.rpartition(".")[0]
        if name in seen or not name.startswith(f"{_OURS}."):
            continue
        seen.add(name)
        if module_file := _module(name):
            file, imports = module_file
            found[name] = file
            found |= {f"{parent}/{weights.name}": weights for weights in file.parent.glob(f"*{_WEIGHTS}")}
            waiting += [parent, *imports]
    return sorted(found.items())


@cache
def _module(name: str) -> tuple[Path, list[str]] | None:
    """The file of a module and what it imports; None where there is no such module."""
    spec = modules.find(name)
    if spec is None or not spec.origin or not os.path.isfile(spec.origin):
        return None
    file = Path(spec.origin)
    return file, [*modules.imports(spec, ast.parse(file.read_bytes()))]


def _package(name: str) -> Iterator[tuple[str, Path]]:
    """The files of a package, or the one of a module, with their names in it; none where it is not there."""
    spec = modules.find(name)
    if spec is None:
        return
    for folder in map(Path, spec.submodule_search_locations or ()):
        yield from ((f"{name}/{file.relative_to(folder)}", file) for file in _files(folder))
    if not spec.submodule_search_locations and spec.origin and os.path.isfile(spec.origin):
        yield name, Path(spec.origin)


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        yield from (Path(where, name) for name in sorted(files) if not name.startswith("."))


def _digest(entries: Iterable[tuple[str, Path]]) -> str:
    """16 hexadecimal digits of names and contents; of what cannot be read, that it cannot."""
    whole = hashlib.sha256()
    for name, file in entries:
        try:
            content = _content(file)
        except OSError as error:
            content = type(error).__name__
        whole.update(f"{name!r} {content}\n".encode())
    return whole.hexdigest()[:16]


def _content(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
