"""The curves of the site are of comparable rows alone, and are drawn where they can be seen."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.leaderboard.sections import of_summary, sections
from gibench.leaderboard.site.chart import HEIGHT, WIDTH, Point, Series, draw, styles
from gibench.leaderboard.site.curves import groups
from gibench.leaderboard.table import summarize
from gibench.registry import readable

SCENARIOS = {
    "dataset": ["photos", "digits"],
    "model": ["mlp:depth=5,width=200", "lenet"],
    "train_steps": [0, 100],
    "labels": ["iid", "same"],
    "knows": ["nothing", "batch_size"],
    "dtype": ["float32", "float64"],
    "device": ["cpu", "cuda"],
    "split": ["private", "tuning"],
}


@pytest.fixture
def curves(make_stored):
    """A function that gives the groups of curves of cells, one a mapping of what it has of its own."""

    def make(*cells):
        rows = [
            make_stored(f"{number:032x}", **({"attack": "spearpp", "defense": "none", "epsilon": None} | cell))
            for number, cell in enumerate(cells)
        ]
        return groups([(each.title, each.lines) for each in sections(of_summary(summarize(rows)), readable, str, str)])

    return make


def test_over_the_batch_size_there_are_rates_psnr_and_seconds(curves):
    (group,) = curves({"batch_size": 4}, {"batch_size": 16, "exact_rate": 0.5}, {"batch_size": 64, "psnr_median": 20.0})
    assert group.over == "batch size"
    assert [tick.text for tick in group.charts[0].across] == ["4", "16", "64"]
    labels = [chart.label for chart in group.charts]
    assert labels == ["share recovered exactly", "median PSNR, dB", "seconds of the attack on a processor (2 threads)"]
    assert [len(series.marks) for chart in group.charts for series in chart.series] == [3, 3, 3]
    assert "batch 4, 16, 64 iid" in group.title


@pytest.mark.parametrize("axis", SCENARIOS)
def test_no_curve_joins_two_scenarios(curves, axis):
    one, other = SCENARIOS[axis]
    assert curves({"batch_size": 4, axis: one}, {"batch_size": 16, axis: other}) == []
    assert len(curves(*({"batch_size": size, axis: value} for size in (4, 16) for value in (one, other)))) == 2


def test_no_curve_joins_two_defenses_or_attacks_or_seconds_of_two_machines(curves):
    noise = "noise:std=0.1"
    assert curves({"batch_size": 4}, {"batch_size": 16, "defense": noise}) == []
    assert curves({"batch_size": 4}, {"batch_size": 16, "attack": "dlg"}) == []
    (group,) = curves({"batch_size": 4}, {"batch_size": 16, "hardware": "another"})
    assert [chart.label for chart in group.charts] == ["share recovered exactly", "median PSNR, dB"]


def test_seconds_of_controls_are_not_drawn_and_controls_are_grey(curves):
    (group,) = curves(
        *(
            {"batch_size": size, "attack": name, "control": name == "random"}
            for size in (4, 9)
            for name in ("dlg", "random")
        )
    )
    assert [len(chart.series) for chart in group.charts] == [2, 2, 1]
    assert {style.name: style.classes for style in group.legend} == {"dlg": "hue0", "random": "control"}


@pytest.mark.parametrize(
    ("over", "cells"),
    [
        (
            "epsilon of one release",
            [{"defense": f"dp:noise_multiplier={noise}", "epsilon": noise} for noise in (1.0, 8.0, 1e7)],
        ),
        ("share of the entries pruned", [{"defense": f"pruning:sparsity={share}"} for share in (0.0, 0.5, 0.99)]),
        (
            "local steps",
            [{"defense": f"fedavg:epochs={epochs},local_batch_size=10"} for epochs in (1, 4, 10)],
        ),
    ],
)
def test_over_the_strength_of_a_defense(curves, over, cells):
    (group,) = curves(*cells, {"defense": "none"}, {"defense": "+".join(("clip", cells[0]["defense"]))})
    assert group.over == over
    assert [len(chart.across) for chart in group.charts] == [3, 3]
    assert len(group.numbers) == 3


def test_a_defense_that_nobody_knows_has_no_curve(curves):
    assert curves({"defense": "pruning:sparsity=many"}, {"defense": "fedavg:x=1"}, {"defense": "<b>"}) == []


values = st.floats(1e-6, 1e9)


@settings(max_examples=40)
@given(
    series=st.lists(st.lists(st.tuples(values, st.floats(0, 1)), min_size=1, max_size=12), min_size=1, max_size=20),
    logarithmic=st.booleans(),
    is_rate=st.booleans(),
)
def test_every_mark_is_within_its_axes_and_no_labels_touch(series, logarithmic, is_rate):
    looks = styles({str(number): number % 3 == 0 for number in range(len(series))})
    assert len({(look.classes, look.marker) for look in looks.values() if look.classes != "control"}) >= min(
        14, sum(look.classes != "control" for look in looks.values())
    )
    lines = [
        Series(
            looks[str(number)],
            [Point(x, y if is_rate else x, y if is_rate else x, y if is_rate else x) for x, y in points],
        )
        for number, points in enumerate(series)
    ]
    chart = draw("x", "y", lines, logarithmic, (0, 1) if is_rate else None)
    for mark in (mark for drawn in chart.series for mark in drawn.marks):
        assert chart.left <= mark.x <= chart.right
        assert chart.top <= mark.y <= chart.bottom
        assert chart.top <= mark.high <= chart.bottom
    ends = [(tick.at - 3.75 * len(tick.text), tick.at + 3.75 * len(tick.text)) for tick in chart.across]
    assert all(one[1] < other[0] for one, other in pairwise(ends))
    assert ends[-1][1] <= WIDTH
    assert ends[0][0] >= 0
    assert max(tick.at for tick in chart.up) < HEIGHT
