"""What decides a result is in the key of its cell: the source of plugins and harness, and files that settings name."""

import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gibench import source
from gibench.axes import expand
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.job import _code_of
from gibench.plugin import Plugin

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "mine"
version = "1.0"
[project.entry-points."gibench.attacks"]
mine = "mine.attack:Mine"
[tool.setuptools]
packages = ["mine"]
py-modules = ["mine_helper"]
"""
ATTACK = """
from pathlib import Path
import torch
from gibench.attack import Attack, Reconstruction

class Mine(Attack):
    weights: Path = Path("none.pt")

    def reconstruct(self, observation, context):
        return Reconstruction(torch.zeros(1, *observation.image_shape))
"""


@pytest.fixture
def forget():
    """A function that makes this process look at files anew, as another one does."""

    def clear():
        for kept in (source._of_packages, source.of_module, source._module, _code_of):
            kept.cache_clear()

    clear()
    yield clear
    clear()


@pytest.fixture
def key(forget):
    def make(**axes):
        forget()
        (cell,) = expand(Cell, {"device": ["cpu"], "threads": [1]} | {name: [value] for name, value in axes.items()})
        return cell.key

    return make


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A project of somebody's, installed so that its source is run where it lies, and where that is noted."""
    folder = tmp_path_factory.mktemp("installed")
    project, site = folder / "project", folder / "site"
    (project / "mine").mkdir(parents=True)
    (project / "pyproject.toml").write_text(PYPROJECT)
    (project / "mine" / "__init__.py").touch()
    (project / "mine" / "attack.py").write_text(ATTACK)
    (project / "mine" / "table.csv").write_text("1,2")
    (project / "mine_helper.py").write_text("FACTOR = 1")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", site, "--editable", project], check=True, capture_output=True, text=True)
    return project, site


@pytest.fixture
def editable(installed, tmp_path, monkeypatch):
    """The same with a copy of the source that a test may edit."""
    original, site = installed
    project = shutil.copytree(original, tmp_path / "project")
    monkeypatch.syspath_prepend(str(project))  # what the installed .pth file does when Python starts
    monkeypatch.syspath_prepend(str(site))
    yield project
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "mine_helper")]:
        del sys.modules[name]


@pytest.mark.parametrize("file", ["mine/attack.py", "mine/table.csv", "mine_helper.py", "mine/new.py"])
def test_an_edited_plugin_makes_other_cells(editable, key, file):
    before = [key(attack="mine"), key(attack="random"), key(attack="wrong-gradient:attack=mine")]
    assert key(attack="mine") == before[0]
    with (editable / file).open("a") as stream:
        stream.write("\n")
    after = [key(attack="mine"), key(attack="random"), key(attack="wrong-gradient:attack=mine")]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]


def test_what_python_and_git_write_beside_a_plugin_changes_nothing(editable, key):
    before = key(attack="mine")
    for name in ("mine/__pycache__/attack.cpython-311.pyc", "mine/.git/index"):
        (editable / name).parent.mkdir(exist_ok=True)
        (editable / name).write_text("x")
    assert key(attack="mine") == before


def test_the_contents_of_weights_that_a_setting_names_count(editable, key, tmp_path):
    weights = tmp_path / "weights.pt"
    keys = [key(attack=f"mine:weights={weights}")]
    for content in (b"one", b"two", b"one"):
        weights.write_bytes(content)
        keys.append(key(attack=f"mine:weights={weights}"))
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]


@pytest.fixture
def folder(tmp_path):
    for number in range(8):
        pixels = np.random.RandomState(number).randint(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def test_the_images_of_a_folder_count_and_nothing_else_in_it(folder, key):
    dataset = f"folder:path={folder}"
    keys = [key(attack="random", dataset=dataset)]
    (folder / "notes.txt").write_text("hello")
    keys.append(key(attack="random", dataset=dataset))
    shutil.copy(folder / "0.png", folder / "9.png")
    keys.append(key(attack="random", dataset=dataset))
    (folder / "9.png").rename(folder / "a.png")
    keys.append(key(attack="random", dataset=dataset))
    shutil.copy(folder / "1.png", folder / "a.png")
    keys.append(key(attack="random", dataset=dataset))
    assert keys[0] == keys[1]
    assert len(set(keys[1:])) == 4


def test_the_same_images_elsewhere_have_the_same_digest(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "copy"
    shutil.copytree(folder, other)
    assert source.of_files(sorted(folder.iterdir())) == source.of_files([*other.iterdir()])
    assert source.of_files([folder]) == source.of_files([other])
    assert source.of_files([]) is None


def test_files_that_are_not_there_are_no_error(tmp_path):
    assert source.of_files([tmp_path / "gone"]) != source.of_files([tmp_path])


def test_a_folder_that_is_gone_is_said_to_be_so(key):
    with pytest.raises(UsageError, match="there is no directory"):
        key(attack="random", dataset="folder:path=/nowhere")


def test_settings_that_are_paths_are_files():
    class Weighted(Plugin):
        name: str = "a"
        weights: Path | None = None

    assert Weighted().files() == []
    assert Weighted(weights=Path("w.pt")).files() == [Path("w.pt")]


LOADED = """
import sys
import torch
torch.set_num_threads(1)
from gibench.axes import expand
from gibench.cell import Cell
for attack in {attacks}:
    cells = expand(Cell, dict(attack=[attack], model=["mlp:width=20,depth=2"], batch_size=[2], device=["cpu"],
                              dataset=["digits"], defense=["dp+pruning"]))
    assert cells[0].run(lambda message, fraction=None: None).row.status == "ok"
print(*(name for name in sys.modules if name.partition(".")[0] == "gibench"))
"""


def test_nothing_of_gibench_that_a_cell_runs_is_outside_its_digests():
    """Imports that the source does not show would leave stale rows."""
    attacks = {"random": "controls", "analytic": "analytic", "wrong-gradient:attack=spearpp": "wrong_gradient"}
    program = [sys.executable, "-c", LOADED.format(attacks=[*attacks])]
    loaded = set(subprocess.run(program, capture_output=True, text=True, check=True).stdout.split())
    modules = [*(f"gibench.attacks.{name}" for name in attacks.values()), "gibench.attacks.spearpp"]
    modules += ["gibench.stages", "gibench.models.mlp", "gibench.datasets.digits"]
    modules += ["gibench.defenses.dp", "gibench.defenses.pruning"]
    covered = set().union(*map(source.closure, modules))
    # These make no result: what is called from Python, and what is computed for tables.
    outside = {name for name in loaded - covered if not name.startswith(("gibench.leaderboard", "gibench.audit"))}
    assert outside - {"gibench", "gibench.sweep"} == set()


def test_an_attack_of_ours_does_not_count_for_another():
    spearpp, dlg = (source.closure(f"gibench.attacks.{name}") for name in ("spearpp", "optimization.dlg"))
    assert "gibench.attacks.spearpp.search" in spearpp - dlg
    assert "gibench.attacks.optimization.matching" in dlg - spearpp
    assert not {name for name in spearpp | dlg | source.closure("gibench.stages") if "gibench.cli." in name}
    assert "gibench.client" in source.closure("gibench.stages")


def test_the_weights_of_our_metrics_count():
    assert any(name.endswith(".safetensors") for name, _ in source._closure("gibench.stages"))


def test_a_plugin_without_source_has_a_digest():
    assert source.of_plugin(EntryPoint("gone", "nowhere.at.all:Gone", "gibench.attacks"))
