"""`gibench utility` trains, stores, and does not train again what is stored."""

import json

import pytest

import gibench
from gibench.result import columns_of
from gibench.results import Results
from gibench.utility.job import TrialRow

pytestmark = pytest.mark.usefixtures("workplace")
QUICK = ("--model", "mlp:width=9,depth=1", "--rounds", "3", "--device", "cpu")


def test_the_defense_is_shown_beside_none(call):
    code, out, err = call("utility", *QUICK, "--defense", "pruning:sparsity=0.5", "--seed", "0-1")
    assert code == 0
    assert out.startswith("dataset digits; model mlp:depth=1,width=9; device cpu; threads ")
    lines = [line.split() for line in out.splitlines()]
    assert [line[0] for line in lines[4:6]] == ["none", "pruning:sparsity=0.5"]
    assert "100%" in lines[4]
    assert err.count("ok, accuracy") == 4


def test_what_is_stored_is_not_run_again_unless_forced(call):
    first = json.loads(call("utility", *QUICK, "--seed", "0", "--json").out)
    again = call("utility", *QUICK, "--seed", "0", "--json")
    assert json.loads(again.out) == first
    assert "[1/1] none | mlp:depth=1,width=9 | digits | batch 20 | seed 0: stored before\n" in again.err
    assert [list(row) for row in first] == [[*columns_of(TrialRow), "run_id", "started"]]
    assert len(Results().rows(TrialRow)) == 1
    call("utility", *QUICK, "--seed", "0", "--force")
    (row,) = Results().rows(TrialRow)
    assert row.run_id != first[0]["run_id"]


def test_training_runs_are_no_cells_and_are_joined_to_them(call):
    call("utility", *QUICK, "--defense", "clip", "--seed", "0", "--batch-size", "4")
    call("run", "--attack", "random", "--defense", "none", "--defense", "clip", "--batch-size", "4", *QUICK[:2])
    table = gibench.leaderboard()
    stored = {row.defense: row.accuracy for row in Results().rows(TrialRow)}
    assert len(table) == 2
    assert dict(zip(table["defense"], table["utility_accuracy"], strict=True)) == stored
    assert "utility" in call("leaderboard").out


def test_a_suite_trains_with_its_defenses_afterwards(call, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text("attack: random\ndefense: [none, clip]\nmodel: linear\nbatch_size: 2\nutility: digits\n")
    assert call("sweep", suite, "--device", "cpu").code == 0
    found = Results().rows(TrialRow)
    assert {(row.model, row.batch_size, row.rounds) for row in found} == {("linear", 2, 300)}
    assert sorted(row.defense for row in found) == ["clip:max_norm=1.0"] * 3 + ["none"] * 3
    assert gibench.leaderboard()["utility_accuracy"].notna().all()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--dataset", "lfw"), "lfw has 73 images to train on"),
        (("--defense", "fedavg+fedavg"), "names fedavg twice"),
        (("--defense", "dp:noise_multiplier=-1"), "noise_multiplier='-1' is refused"),
        (("--rounds", "0"), "rounds=0 is refused"),
        (("--seed", "x"), "'x' is no seed"),
        (("--batch-size", "700"), "a round of 700 images is more than the 658 of digits"),
    ],
)
def test_a_mistake_is_one_clear_line(call, arguments, complaint):
    code, out, err = call("utility", *arguments)
    assert (code, out) == (2, "")
    assert complaint in err
    assert err.count("\n") == 1


def test_a_suite_with_data_that_teach_nothing_is_refused_before_anything_runs(call, tmp_path):
    suite = tmp_path / "suite.yaml"
    suite.write_text("attack: random\nutility: lfw\n")
    code, _, err = call("sweep", suite)
    assert code == 2
    assert "lfw has 73 images to train on" in err
    assert "[1/1]" not in err
