"""Figures show what the rows say, of one scenario each."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from gibench.leaderboard import pick
from gibench.leaderboard.plots import PLOTS, draw
from gibench.leaderboard.table import table
from gibench.spec import Spec, parse

DEFAULTS = {"objective": "l1", "optimizer": "radam", "rounding": "refine", "preset": "full", "without": "none"}
SPEARPP = str(Spec.of("spearpp", DEFAULTS))


def shorten(kind, spec):
    """As the registry does it, with the defaults that the specs here are made with."""
    parsed = parse(spec)
    return str(Spec.of(parsed.name, {key: value for key, value in parsed.settings if DEFAULTS.get(key) != value}))


def variant(**settings):
    return str(Spec.of("spearpp", DEFAULTS | settings))


@pytest.fixture
def stored(make_stored):
    """A function that gives a row without defense, with diagnostics."""

    def make(attack=SPEARPP, width=200, diagnostics=None, **changes):
        row = make_stored(
            **{"attack": attack, "defense": "none", "model": f"mlp:depth=5,width={width}", "certified_rate": 0.5}
            | changes
        )
        return replace(row, beside={f"diagnostics.{key}": value for key, value in (diagnostics or {}).items()})

    return make


def picked(name, rows):
    return PLOTS[name].pick(pick.describe(table(rows), shorten))


def drawn(name, rows, *images):
    """The figure, which can be written, and its axes."""
    figure = draw(PLOTS[name], picked(name, rows), *images)
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png")
    return figure, figure.axes


def heights(bars):
    return [bar.get_height() for bar in bars]


def ticks(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def test_scaling_shows_rates_lambda_time_by_stage_and_memory_over_sizes(stored):
    first = {"seconds.svd": 0.5, "seconds.search": 1.0, "sparsity_matching": 1.0}
    second = {"seconds.svd": 0.5, "sparsity_matching": 0.9}
    rows = [
        stored(batch_size=64, width=1000, runtime_s=8.0, diagnostics=first, peak_memory_mb=2048),
        stored(batch_size=20, runtime_s=2.0, diagnostics=first, exact_rate=1.0),
        stored(batch_size=20, runtime_s=2.0, diagnostics=second, exact_rate=0.5, seed=1),
    ]
    figure, (rates, seconds, shares, memory) = drawn("scaling", rows)
    assert ticks(rates.xaxis) == ["20\n200", "64\n1000"]
    exact, certified = rates.containers
    assert heights(exact) == [0.75, 0.95]
    assert heights(certified) == [0.5, 0.5]
    assert rates.lines[0].get_ydata().tolist() == [0.95, 1.0]
    assert seconds.get_yscale() == "log"
    by_stage = {bars.get_label(): heights(bars) for bars in shares.containers}
    assert by_stage["svd"] == pytest.approx([0.25, 0.0625])
    assert by_stage["search"] == pytest.approx([0.25, 0.125])  # a stage that one cell did without took it no time
    assert by_stage["other"] == pytest.approx([0.5, 0.8125])
    assert heights(memory.containers[0]) == pytest.approx([300 / 1024, 2])
    assert "photos; mlp:depth=5; 0 training steps" in figure.get_supxlabel()


def test_the_wall_shows_both_attacks_and_the_draws_beside_the_prediction(stored):
    def spear(size, draws, expected, **changes):
        attack = Spec.of("spear", {"draws": "500"})
        return stored(str(attack), batch_size=size, diagnostics={"draws": draws, "expected_draws": expected}, **changes)

    rows = [
        spear(8, 10, 12.0, runtime_s=1.0),
        spear(10, 90, 80.0, runtime_s=5.0),
        spear(12, 500, 900.0, runtime_s=30.0, status="budget_exhausted"),
        *(stored(batch_size=size, runtime_s=0.5) for size in (8, 10, 12)),
    ]
    _, (seconds, draws) = drawn("wall", rows)
    lines = {line.get_label(): line for line in seconds.lines}
    assert lines["spear"].get_xdata().tolist() == [8, 10]
    assert lines["spearpp"].get_xdata().tolist() == [8, 10, 12]
    assert lines["spear, budget exhausted"].get_xydata().tolist() == [[12, 30]]
    assert lines["spear, budget exhausted"].get_markerfacecolor() == "white"
    lines = {line.get_label(): line for line in draws.lines}
    assert lines["expected before it starts"].get_ydata().tolist() == [12, 80, 900]
    assert lines["drawn by spear"].get_ydata().tolist() == [10, 90]
    assert seconds.get_yscale() == draws.get_yscale() == "log"


def test_the_wall_has_the_attacks_of_one_scenario_only(stored):
    spear = [stored("spear:draws=500", batch_size=8), stored("spear:draws=9", batch_size=10)]
    elsewhere = [stored(batch_size=size, hardware="another") for size in (8, 10, 12)]
    found = picked(
        "wall", [*elsewhere, *spear, stored(batch_size=8), stored(variant(without="deflation"), batch_size=9)]
    )
    pairs = sorted(zip(found["name"], found["batch_size"], found["hardware"], strict=True))
    here = "a processor (2 threads)"
    assert pairs[:2] == [("spear", 8, here), ("spear", 10, here)]
    assert len(pairs) == 3
    assert pairs[2][0::2] == ("spearpp", here)
    assert picked("wall", elsewhere).empty


def test_hard_batches_show_label_policies_and_bins_of_likeness(stored):
    rows = [
        stored(batch_size=8, labels="same", exact_rate=0.5),
        stored(batch_size=8, labels="iid", exact_rate=1.0),
        stored(batch_size=8, labels="unique", exact_rate=0.75),
        stored(batch_size=10, labels="iid"),
    ]
    images = pd.DataFrame(
        {"nearest": [14.9, 15.0, 17.0, 31.0, 100.0, np.nan], "exact": [True, True, False, False, False, True]}
    )
    _, (policies, neighbours) = drawn("hard_batches", rows, images)
    assert ticks(policies.xaxis) == ["unique", "iid", "same"]
    assert [heights(bars) for bars in policies.containers] == [[0.75, 1.0, 0.5]]  # none of batches without a comparison
    assert ticks(neighbours.xaxis) == ["under 15\nn = 1", "15-18\nn = 2", "30 up\nn = 2"]
    assert heights(neighbours.containers[0]) == [1, 0.5, 0]


def test_training_shows_a_panel_for_each_width(stored):
    rows = [
        stored(width=width, train_steps=steps, exact_rate=rate, model_accuracy=0.3)
        for width in (1000, 200)
        for steps, rate in ((0, 1.0), (100, width / 2000))
    ]
    _, panels = drawn("training", [*rows, stored(width=400)])
    assert [panel.get_title(loc="left") for panel in panels] == ["width 200", "width 1000"]
    for panel, last in zip(panels, (0.1, 0.5), strict=True):
        lines = {line.get_label(): line for line in panel.lines}
        assert lines["exact"].get_xydata().tolist() == [[0, 1], [100, last]]
        assert lines["accuracy of the model"].get_ydata().tolist() == [0.3, 0.3]
        assert ticks(panel.xaxis) == ["0", "100"]


def test_objectives_show_every_way_to_search_best_on_top(stored):
    specs = {SPEARPP: 0.9, variant(objective="l4"): 0.2, variant(rounding="sample"): 0.4, variant(preset="paper"): 0.3}
    rows = [stored(attack, exact_rate=rate, runtime_s=rate) for attack, rate in specs.items()]
    _, (rates, seconds) = drawn("objectives", [*rows, stored(variant(without="deflation"))])
    assert ticks(rates.yaxis) == ["l4, radam, refine", "preset paper", "l1, radam, sample", "l1, radam, refine"]
    assert [bar.get_width() for bar in rates.containers[0]] == [0.2, 0.3, 0.4, 0.9]
    assert seconds.lines[0].get_xdata().tolist() == [0.2, 0.3, 0.4, 0.9]


def test_an_ablation_shows_everything_first_then_what_is_left_out(stored):
    specs = {SPEARPP: 0.8, variant(without="deflation"): 0.9, variant(preset="paper"): 0.3}
    rows = [stored(attack, exact_rate=rate) for attack, rate in specs.items()]
    _, (rates, _) = drawn("ablation", [*rows, stored(variant(objective="l4"))])
    assert ticks(rates.yaxis) == ["preset=paper", "without=deflation", "everything"]
    assert rates.lines[0].get_xdata().tolist() == [0.5, 0.5, 0.5]


def test_variants_are_compared_on_the_same_seeds(stored):
    rows = [stored(seed=seed) for seed in range(5)]
    rows += [stored(variant(without="deflation"), seed=seed) for seed in (1, 2)]
    rows += [stored(variant(preset="paper"), seed=seed) for seed in (1, 2)]
    rows += [stored(variant(rounding="sample"), seed=9)]
    found = picked("ablation", rows)
    assert sorted(zip(found["variant"], found["seed"], strict=True)) == [
        (name, seed) for name in ("spearpp", "spearpp:preset=paper", "spearpp:without=deflation") for seed in (1, 2)
    ]


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("dataset", "digits"),
        ("defense", "dp"),
        ("knows", "nothing"),
        ("hardware", "another"),
        ("dtype", "float64"),
        ("device", "cuda"),
        ("train_steps", 5),
        ("labels", "same"),
        ("attack", variant(without="deflation")),
        ("model", "mlp:depth=2,width=200"),
    ],
)
def test_a_plot_never_mixes_two_scenarios_and_takes_the_one_with_most_points(stored, column, other):
    rows = [stored(batch_size=size) for size in (8, 10, 12)]
    strange = [stored(batch_size=20, seed=seed, **{column: other}) for seed in range(9)]
    assert picked("scaling", strange + rows)["batch_size"].tolist() == [8, 10, 12]


def test_what_was_skipped_or_is_no_network_with_a_width_is_not_drawn(stored):
    rows = [stored(), stored(status="skipped", seed=1, exact_rate=None, runtime_s=None)]
    assert picked("scaling", rows)["seed"].tolist() == [0]
    assert picked("scaling", [stored(model="lenet")]).empty


@pytest.mark.parametrize("name", PLOTS)
def test_no_rows_are_picked_of_none(name, stored):
    assert picked(name, []).empty
    assert picked(name, [stored("random")]).empty


@pytest.mark.parametrize("name", ["hard_batches", "training", "objectives", "ablation"])
def test_a_comparison_needs_two_to_compare(name, stored):
    assert picked(name, [stored(), stored(seed=1)]).empty
