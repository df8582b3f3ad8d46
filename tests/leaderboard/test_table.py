"""The tables say what the rows say: nothing that may not be compared is, and every failure counts."""

import math
import random
from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.leaderboard.table import kept, newest, summarize, table
from gibench.result import COLUMNS, STATUSES

FIRST, LATER = "2026-01-01T00:00:00.000+00:00", "2026-01-02T00:00:00.000+00:00"
TRIALS = st.lists(
    st.fixed_dictionaries(
        {
            "attack": st.sampled_from(["spearpp", "random"]),
            "defense": st.sampled_from(["none", "dp:delta=1e-05"]),
            "batch_size": st.sampled_from([4, 20]),
            "knows": st.sampled_from(["nothing", "labels"]),
            "status": st.sampled_from(STATUSES),
            "psnr_mean": st.floats(0, 100),
            "psnr_median": st.floats(0, 100),
            "adaptive": st.booleans(),
            "runtime_s": st.none() | st.floats(0, 1e4),
            "false_certificates": st.integers(0, 20),
        }
    ),
    max_size=12,
)


def one(rows):
    """The only line of the summary, as plain values."""
    (line,) = summarize(rows).to_dict("records")
    return line


def test_the_table_has_the_columns_in_order_then_where_a_row_is_from(make_stored):
    found = table([make_stored(seed=3), make_stored(seed=1)])
    assert list(found) == [*COLUMNS, "run_id", "started"]
    assert found["seed"].tolist() == [3, 1]
    assert found["epsilon"].tolist() == [4.2, 4.2]


def test_the_table_of_no_rows_has_the_same_columns_and_types(make_stored):
    empty, full = table([]), table([make_stored()])
    assert empty.empty
    assert empty.dtypes.equals(full.dtypes)
    assert summarize([]).dtypes.equals(summarize([make_stored()]).dtypes)


def test_whole_numbers_stay_whole_beside_nulls(make_stored):
    found = table([make_stored(n_true=None, adaptive=None), make_stored(n_true=7)])
    assert found["n_true"].dtype == "Int64"
    assert found["n_true"].isna().tolist() == [True, False]
    assert found["adaptive"].dtype == "boolean"


@settings(max_examples=50, deadline=None)
@given(trials=TRIALS)
def test_every_number_agrees_with_one_computed_by_hand(make_stored, trials):
    rows = [make_stored(seed=seed, **trial) for seed, trial in enumerate(trials)]
    keys = ("attack", "defense", "batch_size", "knows")
    summary = summarize(rows)
    assert len(summary) == len({tuple(getattr(row, key) for key in keys) for row in rows})
    for _, line in summary.iterrows():
        group = [row for row in rows if all(getattr(row, key) == line[key] for key in keys)]
        tried = [row for row in group if row.status != "skipped"]
        assert line["n_ok"] == sum(row.status == "ok" for row in group)
        assert line["n_tried"] == len(tried)
        assert line["n_skipped"] == len(group) - len(tried)
        if not tried:
            assert pd.isna(line["psnr_mean"])
            assert pd.isna(line["false_certificates"])
            continue
        assert math.isclose(line["psnr_mean"], sum(row.psnr_mean for row in tried) / len(tried), rel_tol=1e-12)
        assert line["false_certificates"] == sum(row.false_certificates for row in tried)
        times = [row.runtime_s for row in tried if row.runtime_s is not None]
        assert pd.isna(line["runtime_s"]) if not times else math.isclose(line["runtime_s"], sum(times) / len(times))


@settings(max_examples=30, deadline=None)
@given(trials=TRIALS, order=st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_no_bit(make_stored, trials, order):
    rows = [make_stored(run_id=f"{seed:032x}", seed=seed, **trial) for seed, trial in enumerate(trials)]
    shuffled = order.sample(rows, len(rows))
    pd.testing.assert_frame_equal(summarize(shuffled), summarize(rows), check_exact=True)


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("dataset", "digits"),
        ("model", "linear"),
        ("train_steps", 100),
        ("batch_size", 64),
        ("labels", "same"),
        ("knows", "nothing"),
        ("split", "tuning"),
        ("dtype", "float64"),
        ("device", "cuda"),
        ("defense", "none"),
    ],
)
def test_attacks_are_not_ranked_across(make_stored, column, other):
    rows = [make_stored(psnr_median=90.0), make_stored(attack="other", psnr_median=8.0, **{column: other})]
    assert summarize(rows)["rank"].tolist() == [1, 1]


def test_an_attack_that_picks_with_the_truth_has_no_rank_and_takes_none(make_stored):
    rows = [make_stored(attack="cheat", oracle=True, psnr_median=99.0), make_stored(psnr_median=90.0)]
    summary = summarize(rows).set_index("attack")
    assert pd.isna(summary.loc["cheat", "rank"])
    assert summary.loc[rows[1].attack, "rank"] == 1


def test_failures_count_with_the_score_of_their_rows(make_stored):
    grey = {"psnr_mean": 10.0, "exact_rate": 0.0, "runtime_s": None}
    rows = [make_stored(seed=0, psnr_mean=90.0, exact_rate=1.0)]
    rows += [make_stored(seed=seed, status=status, **grey) for seed, status in enumerate(("failed", "timeout"), 1)]
    line = one(rows)
    assert (line["n_ok"], line["n_tried"]) == (1, 3)
    assert line["psnr_mean"] == pytest.approx(110 / 3)
    assert line["exact_rate"] == pytest.approx(1 / 3)
    assert line["runtime_s"] == 1.25


@pytest.mark.parametrize("name", ["label_accuracy", "labels_found"])
def test_a_cell_without_labels_has_none_right_if_others_gave_some(make_stored, name):
    failed = make_stored(seed=1, status="failed", **{name: None})
    assert one([make_stored(**{name: 0.8}), failed])[name] == 0.4
    assert pd.isna(one([make_stored(**{name: None}), failed])[name])


def test_what_was_skipped_is_named_and_does_not_count(make_stored):
    nothing = {"psnr_mean": None, "exact_rate": None, "false_certificates": None, "hardware": None}
    rows = [make_stored(seed=seed, status="skipped", reason="no bias", **nothing) for seed in (2, 1)]
    line = one([*rows, make_stored(seed=0, status="failed", reason="NaN")])
    assert (line["n_ok"], line["n_tried"], line["n_skipped"]) == (0, 1, 2)
    assert line["psnr_mean"] == 95.5
    assert line["reason"] == "failed: NaN (seed 0); skipped: no bias (seed 1, 2)"


def test_what_failed_before_its_attack_ran_has_no_score_and_does_not_count(make_stored):
    rows = [make_stored(), make_stored(seed=1, status="failed", psnr_mean=None, psnr_median=None, exact_rate=None)]
    line = one(rows)
    assert (line["n_ok"], line["n_tried"], line["n_skipped"], line["exact_rate"]) == (1, 1, 1, 0.95)


def test_intervals_are_those_of_the_cells(make_stored):
    rows = [make_stored(seed=seed, exact_rate=rate, psnr_median=40.0 + seed) for seed, rate in enumerate((0.0, 1.0))]
    line = one(rows)
    assert (line["exact_rate"], line["exact_low"], line["exact_high"]) == (0.5, 0.0, 1.0)
    assert (line["psnr_median"], line["psnr_low"], line["psnr_high"]) == (40.5, 40.0, 41.0)
    assert pd.isna(one(rows[:1])["exact_low"])  # one cell does not say how cells differ


def test_no_false_certificate_of_many_leaves_a_rate_open(make_stored):
    rows = [make_stored(seed=seed, n_true=20, certified_rate=0.9, split_size=520) for seed in range(5)]
    line = one(rows)
    assert (line["n_certified"], line["false_certificates"]) == (90, 0)
    assert line["false_rate_at_most"] == pytest.approx(1 - 0.05 ** (1 / 90))
    few = one([replace(row, split_size=50) for row in rows])  # of which the 90 are made, again and again
    assert (few["n_certified"], few["false_rate_at_most"]) == (90, pytest.approx(1 - 0.05 ** (1 / 50)))
    assert pd.isna(one([replace(row, split_size=None) for row in rows])["false_rate_at_most"])


def test_the_weakest_promise_is_the_one_stated(make_stored):
    rows = [
        make_stored(seed=0, run_epsilon=3.0, run_steps=10, noise_multiplier=1.0, max_grad_norm=1.0, budget="9 draws"),
        make_stored(seed=1, run_epsilon=9.0, run_steps=30, noise_multiplier=0.5, max_grad_norm=2.0, budget="9 draws"),
    ]
    line = one(rows)
    assert [line[name] for name in ("run_epsilon", "run_steps", "noise_multiplier", "max_grad_norm", "budget")] == [
        *(9.0, 30, 0.5, 2.0),
        "9 draws",
    ]


def test_threads_are_no_part_of_the_scenario(make_stored):
    rows = [make_stored(psnr_median=90.0), make_stored(attack="other", psnr_median=8.0, threads=1)]
    assert summarize(rows)["rank"].tolist() == [1, 2]


def test_the_newest_row_of_a_cell_counts(make_stored):
    old = make_stored("a" * 32, FIRST, cell="1" * 16, psnr_mean=1.0)
    new = make_stored("b" * 32, LATER, cell="2" * 16, psnr_mean=2.0)  # by a newer version, so under another key
    assert newest([new, old]) == [new]
    assert one([new, old])["psnr_mean"] == 2.0
    assert one([new, old])["n_tried"] == 1


def test_times_of_cells_that_ran_beside_others_are_not_averaged_with_those_of_cells_that_did_not(make_stored):
    line = one([make_stored(seed=0), make_stored(seed=1, workers=2)])
    assert pd.isna(line["runtime_s"])
    assert line["hardware"] == "a processor (2 threads); a processor (2 threads), 2 jobs at a time"
    line = one([make_stored(seed=0, workers=2), make_stored(seed=1, workers=2)])
    assert line["runtime_s"] == 1.25


def test_times_from_different_hardware_are_not_averaged(make_stored):
    line = one([make_stored(seed=0), make_stored(seed=1, hardware="another")])
    assert pd.isna(line["runtime_s"])
    assert line["hardware"] == "a processor (2 threads); another"
    assert line["psnr_mean"] == 95.5


def test_the_largest_epsilon_is_the_one_stated(make_stored):
    line = one([make_stored(seed=0, epsilon=1.0), make_stored(seed=1, epsilon=3.0)])
    assert (line["epsilon"], line["delta"]) == (3.0, 1e-5)


def test_thousands_of_rows_take_seconds(make_stored):
    generator = random.Random(0)
    rows = [
        make_stored(attack=f"attack{attack}", seed=seed, psnr_median=generator.random())
        for attack in range(300)
        for seed in range(20)
    ]
    summary = summarize(rows)
    assert summary["rank"].tolist() == list(range(1, 301))


@pytest.mark.parametrize("source", [None, "theirs.csv"])
def test_every_line_is_of_one_of_the_rows_it_was_made_of(make_stored, source):
    rows = [replace(make_stored(seed=0), source=source), replace(make_stored(attack="random", seed=1), source=source)]
    summary = summarize(rows)
    assert kept(summary, rows).equals(summary)
    assert kept(summary, rows[1:])["attack"].tolist() == ["random"]
    assert len(kept(summary, [])) == 0
