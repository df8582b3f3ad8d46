"""Every attack against every defense in one picture: which rows, and what is written where."""

import io
from dataclasses import replace

import pytest

from gibench.leaderboard import pick
from gibench.leaderboard.plots import PLOTS, draw
from gibench.leaderboard.table import table

SCORES = {  # of attack and defense: PSNR and exact rate, seed by seed
    ("spearpp", "none"): [(100.0, 1.0), (60.0, 0.5)],
    ("dlg", "none"): [(30.0, 0.0), (32.0, 0.0)],
    ("spearpp-pruned", "none"): [(100.0, 1.0), (100.0, 1.0)],
    ("random", "none"): [(8.0, 0.0), (9.0, 0.0)],
    ("spearpp", "pruning"): [(12.0, 0.0), (12.0, 0.0)],
    ("spearpp-pruned", "pruning"): [(90.0, 0.75), (90.0, 0.75)],
    ("random", "pruning"): [(8.0, 0.0), (8.0, 0.0)],
}


@pytest.fixture
def rows(make_stored):
    return [
        make_stored(
            attack=attack,
            defense=defense,
            seed=seed,
            psnr_mean=psnr,
            exact_rate=exact,
            adaptive=attack == "spearpp-pruned",
            control=attack == "random",
            utility_accuracy=0.75 if defense == "none" else None,
        )
        for (attack, defense), scores in reversed(SCORES.items())
        for seed, (psnr, exact) in enumerate(scores)
    ]


def picked(rows):
    return PLOTS["matrix"].pick(pick.describe(table(rows), lambda kind, spec: spec))


def drawn(rows):
    figure = draw(PLOTS["matrix"], picked(rows))
    figure.savefig(io.BytesIO(), format="png")
    return figure.axes[0]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_attacks_stand_by_kind_the_best_first_and_defenses_below_none(rows):
    axes = drawn(rows)
    assert ticks(axes.xaxis) == ["spearpp", "dlg", "spearpp-pruned", "random"]
    assert ticks(axes.yaxis) == ["none", "pruning"]


def test_each_field_has_the_mean_psnr_and_the_exact_rate_where_there_is_one(rows):
    axes = drawn(rows)
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written[0, 0] == "80.0\n(0.75)"
    assert written[1, 0] == "31.0"
    assert written[2, 1] == "90.0\n(0.75)"
    assert written[3, 0] == "8.5"
    assert (1, 1) not in written  # dlg was not run against pruning
    assert axes.images[0].get_array().mask.tolist() == [[False] * 4, [False, True, False, False]]


def test_cells_that_did_not_end_ok_are_marked(rows):
    late = [replace(row, status="timeout") if (row.attack, row.seed) == ("dlg", 1) else row for row in rows]
    written = {text.get_position(): text.get_text() for text in drawn(late).texts}
    assert written[1, 0] == "31.0*"
    assert written[0, 0] == "80.0\n(0.75)"


def test_the_kinds_of_attacks_are_named_above_their_first(rows):
    titles = [text.get_text() for text in drawn(rows).texts if text.get_position()[1] < -0.5]
    assert titles == ["attacks that go by the update alone", "adaptive: they know the defense", "controls"]


def test_accuracy_is_beside_the_defenses_that_were_trained_with(rows):
    (right,) = drawn(rows).child_axes
    assert ticks(right.yaxis) == ["0.75", ""]
    assert not drawn([replace(row, utility_accuracy=None) for row in rows]).child_axes


def test_a_long_name_loses_its_settings(rows):
    attack = "wrong-gradient:attack='invertinggradients:max_iterations=300'"
    axes = drawn([replace(row, attack=attack) if row.attack == "random" else row for row in rows])
    assert ticks(axes.xaxis)[-1] == "wrong-gradient"


def test_scenarios_are_not_mixed(rows):
    others = [replace(row, dataset="digits", seed=row.seed + 5) for row in rows if row.attack != "dlg"]
    assert set(picked(rows + others)["dataset"]) == {"photos"}


def test_it_needs_two_attacks_and_two_defenses(rows):
    assert picked([row for row in rows if row.defense == "none"]).empty
    assert picked([row for row in rows if row.attack == "spearpp"]).empty
