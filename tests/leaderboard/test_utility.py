"""What a defense costs, from stored training runs alone."""

from dataclasses import replace

import pytest

from gibench.leaderboard.utility import joined, summarize
from gibench.utility.job import TrialRow

MODEL, DP, DIGITS = "mlp:depth=5,width=200", "dp:delta=1e-05,max_grad_norm=1.0", "digits"
ROW = TrialRow(
    utility="0" * 16,
    defense="none",
    dataset=DIGITS,
    model=MODEL,
    batch_size=20,
    rounds=300,
    seed=0,
    device="cpu",
    threads=2,
    hardware="a processor",
    accuracy=0.9,
    loss=0.5,
    round_s=0.002,
    round_bytes=1000.0,
    run_id="0",
    started="2026-01-01T00:00:00.000+00:00",
)


def trial(**changes):
    return replace(ROW, **changes)


def accuracy(row, *trials):
    (found,) = joined([row], trials)
    return found.utility_accuracy


def test_means_are_over_seeds_and_compared_with_none():
    rows = [
        trial(accuracy=0.9),
        trial(accuracy=0.8, seed=1),
        trial(defense=DP, accuracy=0.5, round_s=0.02, round_bytes=4000.0, epsilon=4.4),
        trial(defense=DP, accuracy=0.3, seed=1, round_s=0.04, round_bytes=4000.0, epsilon=4.4, status="diverged"),
    ]
    none, dp = summarize(rows)
    assert (none["accuracy"], none["accuracy_lost"], none["overhead"]) == (pytest.approx(0.85), 0, 1)
    assert dp["accuracy"] == pytest.approx(0.4)
    assert dp["accuracy_lost"] == pytest.approx(0.45)
    assert (dp["overhead"], dp["bytes_share"]) == (pytest.approx(15), 4)
    assert (dp["n_ok"], dp["n_tried"], dp["accuracy_low"], dp["accuracy_high"]) == (1, 2, 0.3, 0.5)


def test_seconds_of_different_machines_are_not_compared():
    _, dp = summarize([trial(), trial(defense=DP, hardware="another")])
    assert dp["overhead"] is None
    assert dp["accuracy_lost"] == 0


def test_what_was_skipped_has_no_figures():
    skipped = trial(defense=DP, status="skipped", reason="BatchNorm", accuracy=None, round_s=None, round_bytes=None)
    _, dp = summarize([trial(), skipped])
    assert (dp["n_tried"], dp["accuracy"], dp["overhead"], dp["reason"]) == (0, None, None, "BatchNorm")


def test_a_cell_has_the_mean_of_its_defense_model_and_batch_size(make_stored):
    row = make_stored(defense=DP, batch_size=20)
    trials = [trial(defense=DP, accuracy=value, seed=seed) for seed, value in enumerate((0.4, 0.6))]
    others = [
        trial(),
        trial(defense=DP, batch_size=8, accuracy=0.1),
        trial(defense=DP, model="linear", accuracy=0.1),
        trial(defense="dp:delta=1e-06,max_grad_norm=1.0", accuracy=0.1),
    ]
    assert accuracy(row, *trials, *others) == pytest.approx(0.5)
    (found,) = joined([row], [replace(each, run_epsilon=7.5) for each in trials])
    assert (found.utility_epsilon, found.epsilon) == (7.5, row.epsilon)
    assert accuracy(row, *others) is None


def test_its_own_data_set_comes_first_then_cifar10_then_digits(make_stored):
    row = make_stored(defense="none", dataset="lfw")
    cifar, own = trial(dataset="cifar10:root=~/.cache/gibench", accuracy=0.4), trial(dataset="lfw", accuracy=0.7)
    assert accuracy(row, trial()) == 0.9
    assert accuracy(row, trial(), cifar) == 0.4
    assert accuracy(row, trial(), cifar, own) == 0.7
    assert accuracy(row, trial(dataset="mnist")) is None


def test_the_longest_training_counts_and_the_newest_of_one_seed(make_stored):
    row = make_stored(defense="none")
    assert accuracy(row, trial(rounds=1000, accuracy=0.95), trial()) == 0.95
    assert accuracy(row, trial(started="2026-01-02", accuracy=0.2), trial()) == 0.2


def test_a_skipped_training_leaves_the_cell_as_it_is(make_stored):
    row = make_stored(defense="none", utility_accuracy=0.3)
    assert accuracy(row, trial(status="skipped", accuracy=None, round_s=None, round_bytes=None)) == 0.3
