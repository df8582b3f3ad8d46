"""What `gibench new` writes, installed as a distribution of its own: it is found, passes the kit, and runs."""

import json
import os
import subprocess
import sys

import pytest

from gibench.errors import UsageError
from gibench.new import write
from gibench.registry import GROUPS, find
from gibench.testing import findings
from gibench.testing.kit import checks

NAMES = {kind: f"my-{kind}" for kind in GROUPS}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with a new package of each kind."""
    parent = tmp_path_factory.mktemp("written")
    for kind, name in NAMES.items():
        write(kind, name, parent)
    return parent


@pytest.fixture(scope="module")
def new_site(pip_install, written):
    return pip_install(*written.iterdir())


@pytest.fixture
def new(new_site, monkeypatch):
    """The new packages, importable in this process."""
    monkeypatch.syspath_prepend(str(new_site))


@pytest.mark.usefixtures("new")
@pytest.mark.parametrize("kind", GROUPS)
def test_a_new_plugin_is_found_and_passes_the_kit(kind):
    assert find(kind, NAMES[kind]).source == f"gibench-my-{kind} 0.1.0"
    wanted = [name for name in checks(kind) if name != "processes"]
    found = list(findings(kind, NAMES[kind], wanted, batch_size=1))
    assert [each for each in found if each.outcome != "ok"] == []


@pytest.mark.usefixtures("new")
def test_new_plugins_are_listed_and_run_together(call, workplace):
    assert "  my-attack " in call("list", "attacks").out
    options = [part for kind, name in NAMES.items() for part in (f"--{kind}", name)]
    code, out, err = call("run", *options, "--batch-size", 1, "--json")
    (row,) = json.loads(out)
    assert (code, row["status"], row["reason"]) == (0, "ok", None), err


@pytest.mark.slow  # each test file in a process of its own
@pytest.mark.parametrize("kind", GROUPS)
def test_its_own_test_passes(kind, written, new_site):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    environment = os.environ | {"PYTHONPATH": str(new_site)}
    folder = written / f"gibench-my-{kind}"
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_the_program_writes_it_here_and_says_what_is_next(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call("new", "defense", "mine")
    assert (code, err) == (0, "")
    assert out == "gibench-mine is written; next: pip install -e gibench-mine; gibench check defense mine\n"
    made = sorted(str(file.relative_to(tmp_path / "gibench-mine")) for file in tmp_path.rglob("*") if file.is_file())
    assert made == ["README.md", "gibench_mine.py", "pyproject.toml", "tests/test_gibench_mine.py"]
    code, _, err = call("new", "defense", "mine")
    assert code == 2
    assert "gibench-mine is there already" in err


@pytest.mark.parametrize(
    ("kind", "name", "complaint"),
    [
        ("colour", "red", "'colour' is no kind of plugin: there are attack, defense, dataset, model"),
        ("attack", "a b", "'a b' is no name for a plugin"),
        ("attack", "../out", "is no name for a plugin"),
        ("attack", "7", "'7' is no name for a plugin"),
        ("attack", "random", "the name of the attack 'random' is taken by gibench 0"),
    ],
)
def test_what_cannot_be_written_is_refused(kind, name, complaint, tmp_path):
    with pytest.raises(UsageError, match=complaint):
        write(kind, name, tmp_path)
    assert list(tmp_path.iterdir()) == []
