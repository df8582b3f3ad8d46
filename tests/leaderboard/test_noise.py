"""PSNR and exact rate over noise: which rows, and the bound beside them."""

import io

import pandas as pd
import pytest

from gibench.axes import canonical_defense
from gibench.leaderboard import noise, pick
from gibench.leaderboard.plots import PLOTS, draw
from gibench.leaderboard.table import table


@pytest.fixture
def stored(make_stored):
    """A function that gives a row against a defense, in the scenario that the bound is of."""

    def make(defense, attack="spearpp:preset=full", model="mlp:depth=5,width=200", **changes):
        return make_stored(**{"defense": canonical_defense(defense), "attack": attack, "model": model} | changes)

    return make


@pytest.fixture
def rows(stored):
    return [stored(f"noise:std={std}", seed=seed, psnr_median=60.0 + seed) for std in (1e-6, 1e-5) for seed in (0, 1)]


def picked(rows):
    return noise.pick(pick.describe(table(rows), lambda kind, spec: spec))


def test_plain_gaussian_noise_alone_is_placed_by_its_deviation(rows, stored):
    others = [
        stored("none"),
        stored("dp:noise_multiplier=1e-4"),
        stored("noise:std=1e-4,distribution=laplacian"),
        stored("noise:std=1e-4+clip"),
        stored("noise:std=1e-4", batch_size=8),
    ]
    assert sorted(picked(rows + others)["strength"]) == [1e-6, 1e-6, 1e-5, 1e-5]
    assert picked(rows[:2]).empty


def lines(axes):
    return {line.get_label(): line for line in axes.lines}


def test_the_bound_of_the_same_batches_is_drawn_beside_the_attacks(rows, stored, monkeypatch):
    columns = ("batch_size", "width", "depth", "seed", "std", "psnr_median", "exact_rate")
    told = pd.DataFrame(
        [
            (20, 200, 5, 0, 1e-6, 64.0, 0.2),
            (20, 200, 5, 1, 1e-6, 66.0, 0.4),
            (20, 200, 5, 0, 1e-5, 44.0, 0.0),
            (20, 200, 5, 2, 1e-5, 99.0, 0.9),  # not a seed of the rows
            (20, 200, 5, 0, 1e-7, 84.0, 1.0),  # noise that no row has
            (64, 200, 5, 0, 1e-5, 99.0, 0.9),
            (20, 400, 5, 0, 1e-5, 99.0, 0.9),
        ],
        columns=list(columns),
    )
    monkeypatch.setattr(noise, "bounds", lambda: told)
    figure = draw(PLOTS["noise"], picked([*rows, *(stored(f"noise:std={std}", "random") for std in (1e-6, 1e-5))]))
    figure.savefig(io.BytesIO(), format="png")
    decibels, rates = (lines(axes) for axes in figure.axes)
    assert decibels["spearpp:preset=full"].get_xdata().tolist() == [1e-6, 1e-5]
    assert decibels["spearpp:preset=full"].get_ydata().tolist() == [60.5, 60.5]
    assert decibels[noise._LIMIT].get_xdata().tolist() == [1e-6, 1e-5]
    assert decibels[noise._LIMIT].get_ydata().tolist() == [65, 44]
    assert rates[noise._LIMIT].get_ydata() == pytest.approx([0.3, 0.0])
    assert len(decibels) == 3


@pytest.mark.parametrize("change", [{"train_steps": 100}, {"labels": "same"}, {"model": "mlp:depth=1,width=200"}])
def test_no_bound_is_drawn_of_other_batches_or_networks(change, stored):
    rows = [stored(f"noise:std={std}", **change) for std in (1e-6, 1e-5)]
    figure = draw(PLOTS["noise"], picked(rows))
    assert noise._LIMIT not in lines(figure.axes[0])


def test_the_published_bound_falls_by_twenty_decibels_for_ten_times_the_noise():
    found = noise.bounds().pivot_table("psnr_median", "seed", "std")
    assert (found[1e-6] - found[1e-5] - 20).abs().max() < 0.01
    assert noise.bounds()["exact_rate"].between(0, 1).all()
