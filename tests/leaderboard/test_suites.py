"""Every suite that is shipped is one, and says how to run it."""

from importlib import resources
from pathlib import Path

import pytest

from gibench.sweep.suite import Suite

SUITES = sorted(Path(str(resources.files("gibench.leaderboard.suites"))).glob("*.yaml"))


@pytest.mark.parametrize("file", SUITES, ids=lambda file: file.stem)
def test_a_suite_has_cells_and_the_command_that_runs_it(file):
    suite = Suite.read(file, {"device": ["cpu"]})
    assert suite.name == file.stem
    assert len({cell.key for cell in suite.cells()}) == len(suite.cells()) > 0
    assert f"gibench sweep leaderboard/suites/{file.name}" in file.read_text().split("\nname:")[0]


def test_the_sizes_of_the_scaling_suite_come_in_pairs():
    (file,) = [file for file in SUITES if file.stem == "scaling"]
    sizes = {(cell.batch_size, cell.model) for cell in Suite.read(file, {"device": ["cpu"]}).cells()}
    pairs = [(20, 200), (64, 1000), (128, 2000), (210, 4000), (256, 4000), (300, 8000)]
    assert sizes == {(batch, f"mlp:depth=5,width={width}") for batch, width in pairs}


def test_the_baselines_infer_labels_in_some_rows_and_are_granted_them_in_others():
    (file,) = [file for file in SUITES if file.stem == "baselines"]
    cells = Suite.read(file, {"device": ["cpu"]}).cells()
    matching = [cell for cell in cells if cell.attack.startswith(("dlg:", "idlg:", "invertinggradients:"))]
    assert {"labels" in cell.knows.split(",") for cell in matching} == {True, False}
    inferring = {
        cell.attack.split("label_strategy=")[1].split(",")[0] for cell in matching if "labels" not in cell.knows
    }
    assert inferring == {"joint", "idlg", "counts", "bias-corrected", "wainakh", "analytic"}
