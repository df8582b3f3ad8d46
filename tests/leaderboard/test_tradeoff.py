"""Leakage and utility over the strength of a defense: which rows, and where they are drawn."""

import io
from dataclasses import replace

import pytest

from gibench.axes import canonical_defense
from gibench.leaderboard import pick, tradeoff
from gibench.leaderboard.plots import PLOTS, draw
from gibench.leaderboard.table import table


@pytest.fixture
def stored(make_stored):
    """A function that gives a row against a defense."""

    def make(defense, attack="spearpp:preset=full", **changes):
        return make_stored(
            **{"defense": canonical_defense(defense), "attack": attack, "utility_accuracy": 0.9, "epsilon": None}
            | changes
        )

    return make


def picked(rows):
    return tradeoff.pick(pick.describe(table(rows), lambda kind, spec: spec))


@pytest.fixture
def rows(stored):
    return [
        stored("none", utility_accuracy=0.95),
        *(stored(f"pruning:sparsity={share}", exact_rate=1 - share) for share in (0.1, 0.5, 0.9)),
        *(stored(f"dp:noise_multiplier={noise}", epsilon=4 / noise, psnr_mean=10.0) for noise in (1.0, 0.1)),
        stored("fedavg:epochs=2,local_batch_size=3"),
        stored("fedavg:epochs=4,local_batch_size=3"),
    ]


def test_each_kind_of_defense_is_placed_by_its_strength(rows):
    found = picked(rows)
    places = {kind: sorted(group["strength"]) for kind, group in found.groupby("kind")}
    assert places == {"none": [0], "pruning": [0.1, 0.5, 0.9], "dp": [4, 40], "fedavg": [14, 28]}  # of 20 images


def test_only_what_differs_in_strength_alone_is_compared(rows, stored):
    others = [
        stored("pruning:sparsity=0.3,scope=global"),
        stored("pruning:sparsity=0.4,scope=global"),
        stored("pruning:sparsity=0.2+clip"),
        stored("dp:noise_multiplier=0"),
        stored("quantize"),
        stored("pruning:sparsity=0.7", batch_size=8),
    ]
    assert sorted(picked(rows + others)["strength"]) == sorted(picked(rows)["strength"])


def test_a_defense_at_one_strength_has_no_panel(rows):
    found = picked([row for row in rows if "epochs=4" not in row.defense])
    assert set(found["kind"]) == {"none", "pruning", "dp"}
    assert picked(rows[:2]).empty


def test_leakage_is_on_the_left_axis_and_accuracy_on_the_right(rows):
    figure = draw(PLOTS["privacy_utility"], picked(rows))
    figure.savefig(io.BytesIO(), format="png")
    assert len(figure.axes) == 12  # PSNR and exact rate of three kinds, each with accuracy
    pruned = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("pruning:"))
    assert pruned.lines[0].get_xdata().tolist() == [0.1, 0.5, 0.9]
    assert pruned.lines[0].get_ydata().tolist() == [95.5] * 3
    rates = next(axes for axes in figure.axes if axes.lines and axes.lines[0].get_ydata()[:1].tolist() == [0.9])
    assert rates.lines[0].get_ydata() == pytest.approx([0.9, 0.5, 0.1])
    accuracies = [axes for axes in figure.axes if axes.lines[0].get_label() == "accuracy with it"]
    assert len(accuracies) == 6
    assert all(set(axes.lines[0].get_ydata()) == {0.9} for axes in accuracies)
    assert {float(axes.lines[1].get_ydata()[0]) for axes in accuracies} == {0.95}


def test_accuracy_stands_over_the_epsilon_of_its_training(rows):
    trained = [replace(row, utility_epsilon=10 * row.epsilon) if row.epsilon else row for row in rows]
    figure = draw(PLOTS["privacy_utility"], picked(trained))
    private = [axes for axes in figure.axes if axes.get_xlabel().startswith("epsilon")]
    assert {tuple(axes.lines[0].get_xdata()) for axes in private} == {(4.0, 40.0)}
    places = [
        axes.lines[0].get_xdata().tolist() for axes in figure.axes if axes.lines[0].get_label() == "accuracy with it"
    ]
    assert places.count([40.0, 400.0]) == 2


def test_a_line_is_the_mean_over_seeds(rows, stored):
    more = [replace(row, seed=1, exact_rate=0.0) for row in rows]
    figure = draw(PLOTS["privacy_utility"], picked(rows + more))
    halves = [axes.lines[0].get_ydata().tolist() for axes in figure.axes]
    assert pytest.approx([0.45, 0.25, 0.05]) in halves
