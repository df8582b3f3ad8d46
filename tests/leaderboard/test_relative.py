"""What an attack has more than another: on the same batches, and times on the same machine."""

import pytest

from gibench.leaderboard.relative import place, times
from gibench.leaderboard.table import grouped, records, summarize


@pytest.fixture
def rows_of(make_stored):
    """A function that gives the rows of an attack, a PSNR and seconds a seed; a seed of None was not run."""

    def make(attack, psnr, seconds=None, **more):
        return [
            make_stored(attack=attack, seed=seed, psnr_median=value, runtime_s=(seconds or psnr)[seed], **more)
            for seed, value in enumerate(psnr)
            if value is not None
        ]

    return make


def lines(rows, baseline=None):
    groups = grouped(rows)
    chosen = {place(group): group for group in groups if group[-1].attack == baseline}
    return {line["attack"]: line for line in records(summarize(rows, chosen))}


def test_decibels_are_above_the_guess_batch_by_batch(rows_of):
    found = lines(rows_of("one", [30.0, 50.0, 90.0, None]) + rows_of("mean-image", [20.0, 10.0, None, 15.0]))
    assert found["one"]["above_mean_image"] == 25  # of 10 and 40; not 50 less 15
    assert found["mean-image"]["above_mean_image"] is None


def test_another_defense_or_scenario_has_another_guess(rows_of):
    guess = rows_of("mean-image", [10.0], defense="none") + rows_of("mean-image", [15.0])
    found = lines(rows_of("one", [30.0]) + guess)
    assert found["one"]["above_mean_image"] == 15
    elsewhere = lines(rows_of("one", [30.0], knows="nothing") + guess)
    assert elsewhere["one"]["above_mean_image"] is None


def test_a_failed_cell_counts_with_its_score(rows_of):
    rows = rows_of("one", [9.0, 30.0], status="failed") + rows_of("mean-image", [10.0, 10.0])
    assert lines(rows)["one"]["above_mean_image"] == 9.5


def test_times_are_over_shared_seeds(rows_of):
    rows = rows_of("one", [1.0, 1.0, 1.0], [2.0, 4.0, 600.0]) + rows_of("base", [1.0, 1.0], [1.0, 2.0])
    found = lines(rows, "base")
    assert (found["one"]["times_baseline"], found["base"]["times_baseline"]) == (2, 1)
    assert times(grouped(rows), {}) == [None, None]


@pytest.mark.parametrize("other", [{"hardware": "another"}, {"workers": 2}, {"hardware": None}])
def test_times_of_other_machines_are_not_compared(rows_of, other):
    rows = rows_of("one", [1.0]) + rows_of("base", [1.0], **other)
    groups = grouped(rows)
    assert times(groups, {place(group): group for group in groups if group[-1].attack == "base"})[0] is None


def test_new_rates_are_means_over_all_cells_and_null_where_older_ones_lack_them(make_stored):
    rows = [make_stored(seed=seed, reidentified_rate=rate, split_size=50) for seed, rate in enumerate((1.0, 0.5))]
    (line,) = records(summarize(rows))
    assert (line["reidentified_rate"], line["chance"]) == (0.75, 0.02)
    (mixed,) = records(summarize([*rows, make_stored(seed=2)]))
    assert mixed["reidentified_rate"] is None
