"""Plugins are found by entry points, ours and others' alike."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibench.attack import Attack
from gibench.errors import UsageError
from gibench.registry import GROUPS, clashes, create, entries, find, load, load_entry, resolve, shorten, spec_of
from gibench.spec import Spec, parse


def names(kind):
    return [entry.name for entry in entries(kind)]


def test_the_built_ins_are_found_by_their_entry_points():
    assert {"spearpp", "random", "mean-image"} <= set(names("attack"))
    assert {"none", "dp"} <= set(names("defense"))
    assert {"photos", "digits", "lfw", "folder", "cifar10", "cifar100", "mnist", "fashion-mnist"} <= set(
        names("dataset")
    )
    assert {"mlp", "linear", "lenet", "convnet", "resnet18"} <= set(names("model"))


@pytest.mark.parametrize("kind", GROUPS)
def test_names_are_sorted(kind):
    assert names(kind) == sorted(names(kind))


def test_finding_names_imports_no_plugin():
    code = "import sys; from gibench.registry import entries; entries('attack'); print('gibench.attack' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


@pytest.mark.usefixtures("plugins")
def test_another_distribution_registers_by_the_same_groups():
    entry = find("attack", "finds-nothing")
    assert entry.source == "gibench-misbehaving 1.2.3"
    assert issubclass(load("attack", "finds-nothing"), Attack)


@pytest.mark.usefixtures("plugins")
def test_an_installed_distribution_is_noticed_and_so_is_that_it_left(monkeypatch):
    assert "raises" in names("attack")
    monkeypatch.undo()
    assert "raises" not in names("attack")


def test_an_unknown_name_says_what_exists_and_what_was_meant():
    with pytest.raises(
        UsageError, match=r"unknown attack 'randon' \(did you mean 'random'\?\): there are .*mean-image"
    ):
        find("attack", "randon")


def test_a_plugin_with_the_name_of_a_built_in_does_not_take_it(broken_site, monkeypatch):
    monkeypatch.syspath_prepend(str(broken_site))
    (same,) = clashes(entries("attack")).values()
    assert [entry.distribution for entry in same] == ["gibench", "gibench-broken"]
    assert find("attack", "random") == same[0]
    with pytest.raises(UsageError, match=r"'random' of gibench-broken 0\.0\.7 is hidden by gibench's own: give it an"):
        load_entry(same[1])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("not-installed", "cannot be imported: ModuleNotFoundError: No module named 'gibench_no_such_package'"),
        ("import-fails", "of gibench-broken 0.0.7 cannot be imported: RuntimeError: an old"),
        ("no-attack", r"is not a subclass of gibench\.attack\.Attack"),
    ],
)
def test_a_broken_plugin_is_a_clear_error_when_selected(broken_site, monkeypatch, name, complaint):
    monkeypatch.syspath_prepend(str(broken_site))
    with pytest.raises(UsageError, match=complaint):
        load("attack", name)


def test_a_plugin_whose_package_is_missing_shows_in_the_metadata(broken_site, monkeypatch):
    monkeypatch.syspath_prepend(str(broken_site))
    problems = {entry.name: entry.problem() for entry in entries("attack")}
    assert problems["not-installed"] == "its package 'gibench_no_such_package' is not installed"
    assert problems["mean-image"] is None


def test_create_validates_the_settings():
    assert create("model", "mlp:width=7").width == 7
    with pytest.raises(UsageError, match="model 'mlp' has no setting 'height': it has activation, depth, width"):
        create("model", "mlp:height=7")


def test_resolving_adds_every_default():
    assert str(resolve("model", "mlp:width=007")) == "mlp:depth=5,width=7"


@given(st.integers(1, 999), st.integers(1, 9))
def test_resolving_twice_changes_nothing(width, depth):
    once = resolve("model", f"mlp:width={width},depth={depth}")
    assert resolve("model", once) == once


def test_shortening_leaves_out_the_defaults_and_means_the_same():
    assert str(shorten("model", "mlp:depth=5,width=7")) == "mlp:width=7"
    assert shorten("model", resolve("model", "mlp")) == parse("mlp")


def test_shortening_reaches_the_attack_that_a_control_runs():
    text = "wrong-gradient:attack='dlg:max_iterations=20'"
    assert str(shorten("attack", resolve("attack", text))) == text
    assert str(shorten("attack", resolve("attack", "wrong-gradient"))) == "wrong-gradient"


@pytest.mark.parametrize("kind", list(GROUPS))
def test_a_plugin_tells_the_spec_it_was_built_from(kind):
    for entry in entries(kind):
        assert spec_of(kind, create(kind, entry.name)) == resolve(kind, entry.name)
    assert spec_of("model", create("model", "mlp:width=7")) == resolve("model", "mlp:width=7")


def test_a_plugin_tells_its_spec_beside_broken_ones(broken_site, monkeypatch):
    monkeypatch.syspath_prepend(str(broken_site))
    assert spec_of("attack", create("attack", "mean-image")) == resolve("attack", "mean-image")
    assert "gibench_broken.fails" not in sys.modules


@pytest.mark.parametrize("path", ["bad\udcff", "\ud800"])
def test_a_setting_whose_bytes_are_no_utf8_is_refused_before_anything_is_stored(path):
    with pytest.raises(UsageError, match=r"dataset 'folder': path=.* holds bytes that are no UTF-8: rename it"):
        resolve("dataset", Spec.of("folder", {"path": path}))
