"""What is installed from a built wheel."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("gibench", "attacks", "defenses", "leaderboard", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built of a copy, so that building leaves nothing behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, source / part)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(target), str(source)], check=True, capture_output=True, text=True)
    (found,) = target.glob("*.whl")
    return found


def test_nothing_but_gibench_is_put_on_the_import_path(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"gibench"}


def test_every_module_and_data_file_of_the_tree_is_in_it(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("gibench", "attacks", "defenses", "leaderboard"):
        inside = Path("gibench") if folder == "gibench" else Path("gibench") / folder
        for suffix in ("*.py", "*.yaml", "*.csv", "*.safetensors", "*.template", "*.html", "*.css", "*.js", "py.typed"):
            for file in (ROOT / folder).rglob(suffix):
                assert (inside / file.relative_to(ROOT / folder)).as_posix() in names


def test_it_works_where_the_checkout_is_not(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.meta_path = [each for each in sys.meta_path if 'editable' not in repr(each).lower()]\n"
        "import gibench.attacks.spearpp as attack, gibench.scoring.lpips; print(attack.__file__)\n"
        "from gibench.sweep import named; print(named.suites()['smoke'])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    attack, suite = map(Path, done.stdout.splitlines())
    assert attack == tmp_path / "gibench" / "attacks" / "spearpp" / "__init__.py"
    assert suite == tmp_path / "gibench" / "leaderboard" / "suites" / "smoke.yaml"
