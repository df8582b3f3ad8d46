"""Intervals are those of textbooks, and the same whenever they are asked for."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from gibench.leaderboard import intervals
from gibench.leaderboard.intervals import at_most, bootstrap, sign_test


@given(found=st.integers(0, 20), of=st.integers(1, 400))
def test_the_upper_bound_is_the_rate_under_which_so_few_are_seen_one_time_in_twenty(found, of):
    bound = at_most(found, of)
    if found >= of:
        assert bound == 1
        return
    assert binom.cdf(found, of, bound) == pytest.approx(0.05, rel=1e-6)


def test_of_none_in_many_it_is_about_three_over_their_number():
    assert at_most(0, 1000) == pytest.approx(3 / 1000, rel=1e-2)
    assert at_most(0, 0) is None


@given(values=st.lists(st.floats(0, 100), min_size=2, max_size=12), order=st.randoms(use_true_random=False))
def test_an_interval_lies_within_the_values_and_their_order_changes_no_bit(values, order):
    low, high = bootstrap(values, np.mean)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9
    assert bootstrap(order.sample(values, len(values)), np.mean) == (low, high)


@settings(max_examples=20)
@given(values=st.lists(st.floats(0, 100), min_size=2, max_size=12), at_once=st.integers(100, 6000))
def test_drawn_some_resamples_at_a_time_it_is_the_same(values, at_once):
    whole = [bootstrap(values, statistic) for statistic in (np.mean, np.median)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "_AT_ONCE", at_once)
        assert [bootstrap(values, statistic) for statistic in (np.mean, np.median)] == whole


def test_thousands_of_cells_take_no_more_memory_than_hundreds():
    def peak(count):
        tracemalloc.start()
        bootstrap(np.linspace(0, 1, count).tolist(), np.mean)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(10_000) < 2 * peak(500)


@settings(max_examples=20)
@given(value=st.floats(0, 100), count=st.integers(2, 300))
def test_equal_values_leave_nothing_open(value, count):
    assert bootstrap([value] * count, np.mean) == (value, value)


def test_it_is_as_wide_as_theory_says():
    values = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap(values.tolist(), np.mean)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)


def test_one_cell_has_none():
    assert bootstrap([1.0], np.median) == (None, None)


@given(better=st.integers(0, 300), worse=st.integers(0, 300))
def test_the_sign_test_is_the_exact_binomial_one(better, worse):
    found = sign_test(better, worse)
    if better + worse == 0:
        assert found is None
        return
    assert found == pytest.approx(binomtest(better, better + worse).pvalue, rel=1e-9)
    assert found == sign_test(worse, better)


def test_an_interval_covers_the_mean_nearly_as_often_as_it_says():
    generator = np.random.default_rng(3)
    samples = generator.exponential(size=(400, 30))
    ends = [bootstrap(sample.tolist(), np.mean) for sample in samples]
    covered = np.mean([low <= 1 <= high for low, high in ends])
    assert 0.87 < covered < 0.98  # percentile intervals of 30 skewed values are a little too short
