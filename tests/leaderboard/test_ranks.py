"""Ranks keep their rules, whatever the rows: common seeds, failures count, controls and adaptive attacks apart."""

from dataclasses import replace

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.leaderboard.table import summarize

GREY = {"status": "failed", "exact_rate": 0.0, "psnr_mean": 9.0, "psnr_median": 9.0}
SCORES = st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.sampled_from([20.0, 30.0, 55.0, 100.0]))
GRIDS = st.dictionaries(  # attack to scores by seed, all of them on the same seeds
    st.sampled_from("abcdef"), st.lists(SCORES, min_size=4, max_size=4), min_size=2, max_size=6
)


@pytest.fixture(scope="session")
def rows_of(make_stored):
    """A function that gives the rows of one attack: exact rate and median PSNR of each seed, None where it failed."""

    def make(attack, scores, first=0, **changes):
        cells = [GREY if each is None else {"exact_rate": each[0], "psnr_median": each[1]} for each in scores]
        return [
            make_stored(**{"attack": attack, "seed": seed, "run_id": f"{attack}{seed}"} | cell | changes)
            for seed, cell in enumerate(cells, first)
        ]

    return make


@pytest.fixture(autouse=True, scope="module")
def _without_intervals():
    """Ranks have no use for bootstrap intervals, which take most of the time of a table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gibench.leaderboard.table.bootstrap", lambda values, statistic: (None, None))
        yield


def places(rows, column="rank"):
    values = summarize(rows).set_index("attack")[column].astype(object)
    return {attack: None if pd.isna(value) else value for attack, value in values.items()}


def test_exact_rate_comes_first_then_median_psnr(rows_of):
    rows = [*rows_of("a", [(0.5, 20.0)] * 3), *rows_of("b", [(0.0, 90.0)] * 3), *rows_of("c", [(0.5, 30.0)] * 3)]
    assert places(rows) == {"c": 1, "a": 2, "b": 3}


def test_two_exact_and_two_failed_seeds_do_not_beat_a_steady_attack(rows_of):
    lucky = rows_of("lucky", [(1.0, 100.0), (1.0, 100.0), None, None])
    assert places([*lucky, *rows_of("steady", [(0.0, 55.0)] * 4)]) == {"steady": 1, "lucky": 2}


@pytest.mark.parametrize("status", ["failed", "timeout", "diverged"])
def test_every_way_to_fail_counts(rows_of, status):
    rows = rows_of("lucky", [(1.0, 100.0), (1.0, 100.0), None, None])
    failed = [replace(row, status=status) if row.status == "failed" else row for row in rows]
    assert places([*failed, *rows_of("steady", [(0.0, 55.0)] * 4)])["lucky"] == 2


def test_one_seed_never_outranks_four(rows_of):
    rows = [*rows_of("one", [(1.0, 100.0)]), *rows_of("four", [(0.0, 30.0)] * 4)]
    assert places(rows) == {"four": 1, "one": None}
    assert places(rows, "unranked") == {"four": None, "one": "seeds 1 of 4"}
    crowd = [row for name in "abcdef" for row in rows_of(name, [(1.0, 100.0)])]
    assert places([*crowd, *rows_of("four", [(0.0, 30.0)] * 4)]) == {"four": 1, **dict.fromkeys("abcdef")}


def test_seeds_that_only_one_rival_has_do_not_count(rows_of):
    more = [*rows_of("more", [(0.5, 30.0)] * 4), *rows_of("more", [(1.0, 100.0)] * 3, first=4)]
    assert places([*more, *rows_of("a", [(1.0, 100.0)] * 4), *rows_of("b", [(0.0, 20.0)] * 4)]) == {
        "a": 1,
        "more": 2,
        "b": 3,
    }


def test_a_seed_whose_attack_never_ran_is_lacking(rows_of):
    rows = rows_of("a", [(1.0, 100.0)] * 3)
    rows[1] = replace(rows[1], status="failed", psnr_mean=None, psnr_median=None, exact_rate=None)
    assert places([*rows, *rows_of("b", [(0.0, 20.0)] * 3), *rows_of("c", [(0.0, 10.0)] * 3)], "unranked") == {
        "a": "seeds 2 of 3",
        **{"b": None, "c": None},
    }


@settings(max_examples=25)
@given(grid=GRIDS, order=st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(rows_of, grid, order):
    rows = [row for attack, scores in grid.items() for row in rows_of(attack, scores)]
    pd.testing.assert_frame_equal(summarize(order.sample(rows, len(rows))), summarize(rows), check_exact=True)


@settings(max_examples=25)
@given(grid=GRIDS, data=st.data())
def test_a_failure_in_place_of_a_score_never_improves_a_rank(rows_of, grid, data):
    victim, seed = data.draw(st.sampled_from(sorted(grid))), data.draw(st.integers(0, 3))
    before = places([row for attack, scores in grid.items() for row in rows_of(attack, scores)])
    grid = {**grid, victim: [*grid[victim][:seed], None, *grid[victim][seed + 1 :]]}
    after = places([row for attack, scores in grid.items() for row in rows_of(attack, scores)])
    assert after[victim] >= before[victim]


@settings(max_examples=25)
@given(grid=GRIDS, data=st.data())
def test_a_further_seed_that_fails_never_improves_a_rank(rows_of, grid, data):
    victim = data.draw(st.sampled_from(sorted(grid)))
    rows = [row for attack, scores in grid.items() for row in rows_of(attack, scores)]
    for others in (1, len(grid)):  # alone, or with the seed run by everyone, to whom it changes nothing
        more = [row for attack in sorted(grid)[:others] if attack != victim for row in rows_of(attack, [(1, 100)], 4)]
        failed = rows_of(victim, [None], first=4)
        assert (
            places([*rows, *more, *failed])[victim] >= places([*rows, *more, *rows_of(victim, [(1, 100)], 4)])[victim]
        )


@settings(max_examples=25)
@given(few=st.integers(1, 4), more=st.integers(1, 4), good=SCORES, bad=SCORES)
def test_fewer_seeds_never_outrank_and_a_crowd_of_them_not_if_they_are_less_than_half(rows_of, few, more, good, bad):
    rows = [*rows_of("few", [good] * few), *rows_of("many", [bad] * (few + more))]
    assert places(rows) == {"few": None, "many": 1}
    crowd = [*rows, *rows_of("fellow", [good] * few)]
    assert (places(crowd)["few"] is None) == (2 * few < few + more)
    assert places(crowd)["many"] is not None


@settings(max_examples=25)
@given(grid=GRIDS, data=st.data())
def test_leaving_a_seed_out_never_gives_a_rank(rows_of, grid, data):
    victim, seed = data.draw(st.sampled_from(sorted(grid))), data.draw(st.integers(0, 3))
    rows = [row for attack, scores in grid.items() for row in rows_of(attack, scores)]
    found = places([row for row in rows if (row.attack, row.seed) != (victim, seed)], "unranked")
    assert found == {name: "seeds 3 of 4" if name == victim else None for name in grid}


@settings(max_examples=25)
@given(grid=GRIDS, score=SCORES)
def test_controls_and_oracles_have_no_rank_and_move_none(rows_of, grid, score):
    rows = [row for attack, scores in grid.items() for row in rows_of(attack, scores)]
    apart = [*rows_of("noise", [score] * 4, control=True), *rows_of("cheat", [score] * 4, oracle=True)]
    named = rows_of("mean-image", [score] * 4, control=None)  # stored before rows said so
    found = places([*rows, *apart, *named])
    assert {name: found[name] for name in grid} == places(rows)
    assert (found["noise"], found["cheat"], found["mean-image"]) == (None, None, None)
    assert places([*apart, *named], "unranked") == {"noise": "control", "mean-image": "control", "cheat": "oracle"}


@settings(max_examples=25)
@given(plain=GRIDS, adaptive=GRIDS)
def test_adaptive_attacks_rank_apart(rows_of, plain, adaptive):
    first = [row for attack, scores in plain.items() for row in rows_of(attack, scores)]
    second = [row for attack, scores in adaptive.items() for row in rows_of(f"{attack}*", scores, adaptive=True)]
    assert places([*first, *second]) == places(first) | places(second)


def test_what_is_not_better_than_every_control_on_its_seeds_is_not_above_them(rows_of):
    rows = [
        *rows_of("random", [(0.0, 8.0)] * 3, control=True),
        *rows_of("mean-image", [(0.0, 13.0), (0.0, 13.0), (0.0, 14.0), (0.0, 99.0)], control=True),
        *rows_of("good", [(0.0, 20.0)] * 3),
        *rows_of("same", [(0.0, 13.0), (0.0, 13.0), (0.0, 14.0)]),
        *rows_of("poor", [(0.0, 9.0)] * 3),
    ]
    assert places(rows, "above_control") == {
        **{"good": True, "same": False, "poor": False},
        **{"random": None, "mean-image": None},
    }
    assert places(rows_of("good", [(0.0, 20.0)] * 3), "above_control") == {"good": None}


def test_controls_against_another_defense_say_nothing(rows_of):
    rows = [*rows_of("random", [(0.0, 8.0)], control=True, defense="none"), *rows_of("good", [(0.0, 20.0)])]
    assert places(rows, "above_control")["good"] is None
