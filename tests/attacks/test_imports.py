"""The folders of attacks/ stand on one another in one order, and no module imports what imports it."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ATTACKS = Path(__file__).parents[2] / "attacks"
ORDER = (
    "exact",
    "r_gap",
    "trunk",
    "layer_pair",
    "two_valued",
    "spearpp",
    "optimization",
    "transformers",
    "adaptive",
    "",
)  # each may import those before


def imports(root):
    """The modules of the package at `root`, as tuples of names, and which of them each one imports."""
    files = {file.relative_to(root).with_suffix("").parts: file for file in root.rglob("*.py")}
    modules = {parts[:-1] if parts[-1] == "__init__" else parts: (parts[:-1], file) for parts, file in files.items()}
    return {
        module: {found for found in _imported(package, file, set(modules)) if found != module}
        for module, (package, file) in modules.items()
    }


def _imported(package, file, modules):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        named = tuple((node.module or "").split(".")) if node.module else ()
        if node.level:
            base = package[: len(package) - (node.level - 1)] + named
        elif named[:2] == ("gibench", "attacks"):
            base = named[2:]
        else:
            continue
        for alias in node.names:
            yield (*base, alias.name) if (*base, alias.name) in modules else base


def upward(graph):
    """Imports of one folder from another that stands on it."""
    place = {folder: number for number, folder in enumerate(ORDER)}

    def folder(module):
        return module[0] if module[:1] and module[0] in place else ""

    return [
        (module, found)
        for module, imported in graph.items()
        for found in imported
        if place[folder(found)] > place[folder(module)]
    ]


def cyclic(graph):
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return True
    return False


def test_every_folder_has_its_place():
    folders = {file.parent.name for file in ATTACKS.glob("*/__init__.py")}
    assert folders == set(ORDER) - {""}


def test_the_page_lists_each_folder_once_in_its_place():
    _, section = (ATTACKS / "README.md").read_text(encoding="utf-8").split("## Where the code is")
    listed = re.findall(r"^\| \[(\w+)/\]", section, flags=re.MULTILINE)
    assert listed == [folder for folder in ORDER if folder]


def test_nothing_is_imported_from_a_folder_above_and_no_modules_import_each_other():
    graph = imports(ATTACKS)
    assert graph["spearpp", "rounds"] >= {("exact", "recovery"), ("spearpp", "objectives")}
    assert upward(graph) == []
    assert not cyclic(graph)


@pytest.mark.parametrize(
    ("planted", "is_upward", "is_cyclic"),
    [
        ("from ..spearpp.rounds import run", True, True),
        ("from .. import spearpp", True, False),
        ("from gibench.attacks.spearpp import rounds", True, True),
        ("def late():\n    from .other import thing", False, True),
        ("from .third import thing", False, False),
    ],
)
def test_what_is_planted_is_found(tmp_path, planted, is_upward, is_cyclic):
    texts = {
        "exact/select.py": planted,
        "exact/other.py": "from . import select",
        "exact/third.py": "import torch",
        "spearpp/rounds.py": "from ..exact import select",
    }
    for name, text in texts.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text, encoding="utf-8")
    graph = imports(tmp_path)
    assert bool(upward(graph)) is is_upward
    assert cyclic(graph) is is_cyclic


@pytest.mark.parametrize("folder", sorted(set(ORDER) - {""}))
def test_the_order_to_read_a_folder_in_names_each_of_its_files(folder):
    _, *rows = (ATTACKS / folder / "README.md").read_text(encoding="utf-8").split("\n| ")
    named = [name for row in rows for name in re.findall(r"`(\w+\.py)`", row.split("|")[0])]
    assert sorted(named) == sorted({file.name for file in (ATTACKS / folder).glob("*.py")} - {"__init__.py"})
