"""Two attacks on the same batches: signs, differences and intervals are those of the pairs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from gibench.errors import UsageError
from gibench.leaderboard.formats import markdown
from gibench.leaderboard.intervals import bootstrap
from gibench.leaderboard.paired import compare, of_pairs
from gibench.leaderboard.relative import place
from gibench.leaderboard.table import grouped, records

SCORES = st.tuples(st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([10.0, 20.0, 30.0]))


def compared(rows):
    groups = grouped(rows)
    first, second = ({place(group): group for group in groups if group[-1].attack == name} for name in ("one", "two"))
    return records(compare(first, second))


def rows_of(make_stored, attack, scores, **more):
    return [
        make_stored(attack=attack, seed=seed, exact_rate=score[0], psnr_median=score[1], **more)
        for seed, score in scores.items()
    ]


@settings(max_examples=25)
@given(
    first=st.dictionaries(st.integers(0, 9), SCORES, min_size=1),
    second=st.dictionaries(st.integers(0, 9), SCORES, min_size=1),
)
def test_all_is_of_the_shared_seeds(make_stored, first, second):
    rows = rows_of(make_stored, "one", first) + rows_of(make_stored, "two", second)
    shared = sorted(first.keys() & second.keys())
    if not shared:
        with pytest.raises(UsageError, match="one and two share no seed in any scenario and defense: run both"):
            compared(rows)
        return
    (line,) = compared(rows)
    better = sum(first[seed] > second[seed] for seed in shared)
    worse = sum(first[seed] < second[seed] for seed in shared)
    assert [line[f"n_{name}"] for name in ("pairs", "better", "worse", "equal")] == [
        *(len(shared), better, worse, len(shared) - better - worse),
    ]
    expected = binomtest(better, better + worse).pvalue if better + worse else None
    assert line["p_value"] == (None if expected is None else pytest.approx(expected))
    for place_, name in enumerate(("exact", "psnr")):
        differences = [first[seed][place_] - second[seed][place_] for seed in shared]
        assert line[f"{name}_difference"] == pytest.approx(np.mean(differences))
        assert (line[f"{name}_low"], line[f"{name}_high"]) == bootstrap(differences, np.mean)


def test_one_pair_has_a_difference_and_no_interval(make_stored):
    (line,) = compared(rows_of(make_stored, "one", {0: (1.0, 99.0)}) + rows_of(make_stored, "two", {0: (0.0, 9.0)}))
    assert (line["psnr_difference"], line["psnr_low"], line["p_value"]) == (90, None, 1)


def test_ties_say_nothing_of_which_is_better(make_stored):
    same = dict.fromkeys(range(5), (1.0, 100.0))
    (line,) = compared(rows_of(make_stored, "one", same) + rows_of(make_stored, "two", same))
    assert (line["n_equal"], line["p_value"], line["psnr_difference"]) == (5, None, 0)


def test_scenarios_and_defenses_are_apart_and_what_shares_no_seed_is_said(make_stored):
    rows = [
        row
        for attack in ("one", "two")
        for defense, seeds in (("none", (0, 1)), ("dp", (0,) if attack == "one" else (1,)))
        for row in rows_of(make_stored, attack, dict.fromkeys(seeds, (1.0, 50.0)), defense=defense)
    ]
    found = {line["defense"]: line for line in compared(rows)}
    assert {name: line["n_pairs"] for name, line in found.items()} == {"none": 2, "dp": 0}
    assert found["dp"]["psnr_difference"] is None


def test_what_failed_counts_and_what_was_skipped_does_not(make_stored):
    rows = rows_of(make_stored, "one", {0: (1.0, 50.0), 1: (1.0, 50.0)})
    others = rows_of(make_stored, "two", {0: (1.0, 50.0), 1: (0.0, 9.0)})
    others[1] = replace(others[1], status="failed")
    assert compared(rows + others)[0]["n_better"] == 1
    others[1] = replace(others[1], status="skipped", psnr_mean=None)
    assert compared(rows + others)[0]["n_pairs"] == 1


def test_an_attack_is_not_compared_with_itself(make_stored):
    groups = grouped(rows_of(make_stored, "one", {0: (1.0, 9.0)}))
    same = {place(group): group for group in groups}
    with pytest.raises(UsageError, match="one is compared with itself: name two attacks"):
        compare(same, same)


def test_it_is_shown_with_what_it_means(make_stored):
    rows = rows_of(make_stored, "one", {0: (1.0, 30.0), 1: (1.0, 40.0)})
    rows += rows_of(make_stored, "two", {0: (0.0, 20.0), 1: (0.5, 10.0)})
    groups = grouped(rows)
    first, second = ({place(group): group for group in groups if group[-1].attack == name} for name in ("one", "two"))
    text = markdown(of_pairs(compare(first, second)))
    assert "| 2 | 2 | 0 | 0 | 0.5 | 0.750 [0.500, 1.000] | 20.00 [10.00, 30.00] |" in text
    assert "differences are means of `one` less `two`" in text
