"""Writes a package with a plugin that works, for its author to change."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

from gibench.errors import UsageError
from gibench.registry import GROUPS, entries

_NAME = re.compile(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", re.ASCII)
_FILES = {  # template to where it goes
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "test.py": "tests/test_$module.py",
}


def write(kind: str, name: str, parent: Path) -> Path:
    """Write `gibench-NAME/` with pyproject, plugin, test and README.

    Args:
        kind: `attack`, `defense`, `dataset` or `model`.
        name: what it is to be called in specs.
        parent: the folder that the new one is made in.

    Returns:
        The new folder.

    Raises:
        UsageError: no such kind, no name for a spec, one of a plugin that is installed, or the folder is there.
    """
    if kind not in GROUPS:
        raise UsageError(f"'{kind}' is no kind of plugin: there are {', '.join(GROUPS)}")
    if not _NAME.fullmatch(name):
        raise UsageError(f"'{name}' is no name for a plugin: write small letters and digits, as in my-{kind}")
    if taken := next((entry for entry in entries(kind) if entry.name == name), None):
        raise UsageError(f"the name of the {kind} '{name}' is taken by {taken.source}: choose another name")
    folder = parent / f"gibench-{name}"
    if folder.exists():
        raise UsageError(f"{folder} is there already: choose another name, or remove it")
    module = "gibench_" + name.replace("-", "_")
    words = {
        "kind": kind,
        "name": name,
        "group": GROUPS[kind],
        "module": module,
        "cls": "".join(part.capitalize() for part in module.split("_")[1:]),
    }
    (folder / "tests").mkdir(parents=True)
    for template, place in (_FILES | {f"{kind}.py": "$module.py"}).items():
        text = (files("gibench.new") / f"{template}.template").read_text("utf-8")
        (folder / Template(place).substitute(words)).write_text(Template(text).substitute(words), "utf-8")
    return folder
