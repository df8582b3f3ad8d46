"""Every suite that is shipped is one, says how to run it, and is fit to be published: controls, seeds, states."""

from importlib import resources
from pathlib import Path

import pytest

from gibench.axes import axes_of
from gibench.cell import Cell
from gibench.leaderboard.ranks import SCENARIO
from gibench.spec import parse
from gibench.sweep.suite import Suite

SUITES = sorted(Path(str(resources.files("gibench.leaderboard.suites"))).glob("*.yaml"))
CONTROLS = {"random", "mean-image", "wrong-gradient"}
each_suite = pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)


def read(name):
    (file,) = [file for file in SUITES if file.stem == name]
    return Suite.read(file, {"device": ["cpu"]})


def grids(suite):
    """The cells of each grid of a suite."""
    common = suite.model_dump(exclude={"grids"}, exclude_unset=True)
    return [Suite.from_settings("a grid", common | grid).cells() for grid in suite.grids or [{}]]


@each_suite
def test_a_suite_has_cells_and_the_command_that_runs_it(file):
    suite = Suite.read(file, {"device": ["cpu"]})
    assert suite.name == file.stem
    assert len({cell.key for cell in suite.cells()}) == len(suite.cells()) > 0
    assert f"gibench sweep leaderboard/suites/{file.name}" in file.read_text().split("\nname:")[0]


@each_suite
def test_every_grid_has_every_control_wherever_an_attack_is_tried(file):
    places = [name for name in axes_of(Cell) if name != "attack"]
    for cells in grids(Suite.read(file, {"device": ["cpu"]})):
        names = {}
        for cell in cells:
            names.setdefault(tuple(getattr(cell, name) for name in places), set()).add(parse(cell.attack).name)
        assert all(found > CONTROLS for found in names.values())


@each_suite
def test_every_suite_has_an_untrained_network(file):
    assert 0 in {cell.train_steps for cell in Suite.read(file, {"device": ["cpu"]}).cells()}


def test_the_defenses_are_tried_on_a_trained_network_too():
    cells = read("defenses").cells()
    trained = [cell for cell in cells if cell.train_steps]
    assert {parse(cell.defense).name for cell in trained} >= {"none", "dp", "pruning"}
    names = {parse(cell.defense).name for cell in cells}
    assert names == {"none", "dp", "fedavg", "pruning", "quantize", "noise", "clip"}
    assert all(
        len({cell.defense for cell in cells if parse(cell.defense).name == name}) > 1 for name in names - {"none"}
    )


@pytest.mark.parametrize("name", ["headline", "defenses", "baselines"])
def test_what_is_published_has_five_seeds_or_more(name):
    seeds = {}
    for cell in read(name).cells():
        seeds.setdefault(tuple(getattr(cell, axis) for axis in (*SCENARIO, "defense", "attack")), set()).add(cell.seed)
    assert min(map(len, seeds.values())) >= 5


def test_gradient_matching_has_one_budget_in_a_published_suite():
    matching = {"invertinggradients", "modern", "invertinggradients-adaptive", "sme"}
    for name in ("defenses", "baselines"):
        specs = {parse(cell.attack) for cell in read(name).cells()}
        budgets = {dict(spec.settings)["max_iterations"] for spec in specs if spec.name in matching}
        assert budgets == {"300"}


def test_the_sizes_of_the_scaling_suite_come_in_pairs():
    sizes = {(cell.batch_size, cell.model) for cell in read("scaling").cells()}
    pairs = [(20, 200), (64, 1000), (128, 2000), (210, 4000), (256, 4000), (300, 8000)]
    assert sizes == {(batch, f"mlp:depth=5,width={width}") for batch, width in pairs}


def test_the_baselines_infer_labels_in_some_rows_and_are_granted_them_in_others():
    cells = read("baselines").cells()
    matching = [cell for cell in cells if cell.attack.startswith(("dlg:", "idlg:", "invertinggradients:"))]
    assert {"labels" in cell.knows.split(",") for cell in matching} == {True, False}
    inferring = {
        cell.attack.split("label_strategy=")[1].split(",")[0] for cell in matching if "labels" not in cell.knows
    }
    assert inferring == {"joint", "idlg", "counts"}
