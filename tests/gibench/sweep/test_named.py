"""The suites that come with gibench are found by their names."""

from pathlib import Path

import pytest

from gibench.errors import UsageError
from gibench.sweep import named
from gibench.sweep.suite import Suite

SUITES = Path(__file__).parents[3] / "leaderboard" / "suites"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_suite_of_the_tree_has_its_name():
    assert list(named.suites()) == sorted(file.stem for file in SUITES.glob("*.yaml"))
    assert "smoke" in named.suites()


@pytest.mark.parametrize("name", named.suites())
def test_a_name_is_its_file_which_is_a_suite_that_says_what_it_is_for(name):
    file = named.find(Path(name))
    assert Suite.read(file, {}).name == name
    assert len(named.summary(file)) > 20
    assert not any(part in named.summary(file) for part in ("gibench sweep", "#", "\n"))


def test_a_file_is_preferred_to_a_name(here):
    (here / "smoke").write_text("attack: random")
    assert named.find(Path("smoke")) == Path("smoke")


def test_a_folder_of_the_same_name_hides_no_suite(here):
    (here / "smoke").mkdir()
    assert named.find(Path("smoke")).samefile(SUITES / "smoke.yaml")


@pytest.mark.parametrize("path", ["nowhere.yaml", "smoke.yaml", "./folder/smoke", "/nowhere/smoke", ""])
def test_a_path_is_left_to_the_reader(path):
    assert named.find(Path(path)) == Path(path)


@pytest.mark.parametrize("name", ["smok", "Smoke ", "x" * 5000])
def test_an_unknown_name_says_which_there_are(name):
    with pytest.raises(UsageError, match=r"there is no suite .*: give a file, or one of ablation, .*smoke"):
        named.find(Path(name))


def test_a_name_that_is_no_utf8_is_refused(here):
    (here / "s\udcff.yaml").write_text("attack: random")
    with pytest.raises(UsageError, match="has a name whose bytes are no UTF-8: rename it"):
        named.find(Path("s\udcff.yaml"))
