"""`gibench sweep`: a suite file through the program."""

import json

import pytest

from gibench.result import Row
from gibench.results import Results
from gibench.tracking import Store

SUITE = """
name: small
attack: [random, mean-image]
defense: [none, dp]
model: mlp:width=20,depth=2
batch_size: 4
seed: 0-1
device: cpu
"""
pytestmark = pytest.mark.usefixtures("plugins", "workplace")


@pytest.fixture
def suite(workplace):
    file = workplace / "small.yaml"
    file.write_text(SUITE)
    return file


def test_a_suite_runs_the_product_of_its_axes(call, suite):
    code, out, err = call("sweep", suite)
    assert code == 0
    assert len(Results().rows(Row)) == 8
    assert out.count("2 seeds") == 4
    assert "[8/8] mean-image | dp" in err


def test_a_suite_goes_on_where_it_stopped(call, suite):
    call("sweep", suite)
    suite.write_text(SUITE.replace("0-1", "0-2"))
    _, out, err = call("sweep", suite, "--json")
    assert len(json.loads(out)) == 12
    assert err.count("stored before") == 8


def test_the_options_given_take_the_place_of_the_file(call, suite):
    code, _, _ = call("sweep", suite, "--experiment", "other", "--timeout", "30")
    assert code == 0
    assert len(Results(experiment="other").rows(Row)) == 8


def test_a_dry_run_prints_the_cells(call, suite):
    code, out, _ = call("sweep", suite, "--dry-run")
    assert (code, len(out.splitlines())) == (0, 8)
    assert Results().rows(Row) == []


def test_a_failed_cell_is_exit_code_1_and_keeps_the_others(call, suite):
    suite.write_text(SUITE.replace("mean-image", "raises"))
    code, out, _ = call("sweep", suite)
    assert code == 1
    assert "failed: ValueError: no luck today" in out
    assert [row.status for row in Results().rows(Row)].count("ok") == 4


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("attack: random\nspeed: 1", "the suite small.yaml has no setting 'speed': it has attack"),
        ("attack: [random", "the suite small.yaml is no YAML: "),
        ("attack: random\nattack: dp", "the key 'attack' stands twice"),
        ("attack: random\nseed: []", "seed=[] is refused"),
        ("attack: nobody", "unknown attack 'nobody'"),
    ],
)
def test_a_mistake_in_the_suite_is_one_clear_line_and_exit_code_2(call, suite, text, complaint):
    suite.write_text(text)
    code, out, err = call("sweep", "small.yaml")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert complaint in err


def test_a_missing_suite_is_one_clear_line_and_exit_code_2(call):
    code, _, err = call("sweep", "nowhere.yaml")
    assert (code, err) == (2, "error: the suite nowhere.yaml cannot be read: No such file or directory\n")


def test_a_suite_that_comes_with_gibench_goes_by_its_name(call):
    code, out, _ = call("sweep", "smoke", "--dry-run", "--device", "cpu")
    assert (code, len(out.splitlines())) == (0, 24)


def test_an_unknown_name_says_which_suites_there_are(call):
    code, _, err = call("sweep", "smok")
    assert code == 2
    assert err.startswith("error: there is no suite smok: give a file, or one of ablation, ")


@pytest.mark.slow
def test_two_sweeps_in_a_fresh_folder_share_the_cells_and_make_one_store(program, suite, workplace, plugin_site):
    """The store is made by whoever is first; every cell is run once, and both print all rows."""
    (workplace / "gibench.db").unlink()
    processes = [program("sweep", suite, "--json", site=plugin_site) for _ in range(2)]
    found = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert not any("warning" in err for _, err in found)
    assert sorted(out for out, _ in found)[0] == sorted(out for out, _ in found)[1] != ""
    rows = json.loads(found[0][0])
    assert len({row["run_id"] for row in rows}) == len(rows) == 8
    assert sum(err.count("ok, PSNR") for _, err in found) == 8
    assert sorted(row.cell for row in Store(Row).rows()) == sorted(row["cell"] for row in rows)
    assert not list(workplace.glob(".gibench.db*"))
