"""What a table claims is run again and stands beside the claim; a line that does not agree is an exit code."""

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gibench import reproduce
from gibench.attacks.controls import MeanImage
from gibench.errors import UsageError
from gibench.experiment import run_cell
from gibench.leaderboard import publish
from gibench.leaderboard.formats import to_csv
from gibench.leaderboard.table import table
from gibench.result import Row
from gibench.results import Results
from gibench.sweep.suite import Suite

ROOT = Path(__file__).parents[2]
SUITE = {"attack": ["mean-image", "random"], "model": "mlp:width=20,depth=2", "batch_size": 3, "device": "cpu"}


@pytest.fixture(scope="module")
def rows():
    """Rows of two attacks on two seeds that were really run."""
    cells = Suite.from_settings("a suite", SUITE | {"seed": [0, 1], "threads": 1}).cells()
    found = [run_cell(cell, lambda message, fraction=None: None).row for cell in cells]
    return [
        replace(row, run_id=f"{number:032x}", started=f"2026-01-01T00:00:0{number}.000+00:00", runtime_s=2.0)
        for number, row in enumerate(found)
    ]


@pytest.fixture
def publish_rows(workplace, tmp_path, monkeypatch):
    """A function that publishes rows as those of the suite `demo`, in a working folder of its own."""

    def put(rows):
        (tmp_path / "demo.csv").write_text(to_csv(table(rows)))
        monkeypatch.setattr(reproduce, "_file", lambda name: tmp_path / f"{name}.csv")

    return put


def test_claims_that_hold_agree_and_are_run_once(call, publish_rows, rows):
    publish_rows(rows)
    code, out, err = call("reproduce", "demo", "--executor", "local")
    assert code == 0
    assert "2 lines, all agree" in err
    assert "demo: 4 cells, whose attacks took 8 s where they were published" in err
    (line,) = [line for line in out.splitlines() if "random" in line]
    median = f"{fmean(row.psnr_median for row in rows if row.attack == 'random'):.2f}"
    assert line.split()[:9] == ["demo:", "random", "|", "none", "|", "mlp:depth=2,width=20", "|", "batch", "3"]
    assert line.split()[-1] == "yes"
    assert line.split()[9:15] == ["iid", "0-1", "0.000", "0.000", median, median]
    stored = {row.run_id for row in Results().rows(Row)}
    assert len(stored) == 4
    code, out, _ = call("reproduce", "demo", "--executor", "local", "--json")
    assert {row.run_id for row in Results().rows(Row)} == stored
    assert [(each["agrees"], each["seeds"]) for each in json.loads(out)] == [(True, "0-1"), (True, "0-1")]


def test_a_claim_that_does_not_hold_is_said(call, publish_rows, rows):
    publish_rows([replace(row, exact_rate=0.5 if row.attack == "random" else 0.0) for row in rows])
    code, out, err = call("reproduce", "demo", "--executor", "local")
    assert code == 1
    assert [line.split()[-1] for line in out.splitlines() if line.startswith("demo:")] == ["yes", "NO"]
    assert "2 lines, of which 1 do not agree" in err


@pytest.mark.parametrize("change", [{"exact_rate": 1 / 3}, {"psnr_median": 99.0}, {"status": "diverged"}])
def test_each_figure_is_judged(rows, change):
    (line,) = lines(rows[:1], **change)
    assert line.agrees is False


def test_psnr_agrees_within_what_tables_show_and_seconds_are_not_judged(rows):
    (line,) = lines(rows[:1], psnr_median=rows[0].psnr_median + 0.04, runtime_s=500.0)
    assert (line.agrees, line.seconds_ratio) == (True, 250)
    (line,) = lines(rows[:1], psnr_median=rows[0].psnr_median + 0.06)
    assert line.agrees is False


def lines(rows, **changes):
    """What is said of claims of which a second run gave rows with some columns changed."""
    cells = [reproduce._cell(row, {}, reproduce._current) for row in rows]
    plan = reproduce.Plan("demo", list(zip(rows, cells, strict=True)), [])
    measured = {cell.key: replace(row, **changes) for row, cell in plan.pairs}
    return reproduce.compare(plan, measured)


def test_what_ran_out_of_time_is_not_judged(rows):
    (line,) = lines(rows[:1], status="timeout", psnr_median=1.0)
    assert (line.agrees, line.out_of_time) == (None, 1)


def test_a_row_of_a_setting_that_was_renamed_is_run_under_its_new_name(publish_rows, rows, monkeypatch):
    def renamed(settings):
        return {key: value for key, value in settings.items() if key != "copies"}

    old = [replace(row, attack="mean-image:copies=3") for row in rows if row.attack == "mean-image"]
    publish_rows(old)
    with pytest.raises(UsageError, match="has no setting 'copies'"):
        reproduce._cell(old[0], {}, reproduce._current)
    assert reproduce.plan("demo").pairs == []
    monkeypatch.setattr(MeanImage, "renamed", renamed)
    plan = reproduce.plan("demo")
    assert {cell.attack for _, cell in plan.pairs} == {"mean-image"}
    assert plan.refused == []
    (line,) = reproduce.compare(plan, {cell.key: replace(row, attack=cell.attack) for row, cell in plan.pairs})
    assert line.agrees


def test_what_cannot_be_run_is_said_and_the_rest_is(call, publish_rows, rows):
    gone = [replace(row, attack="gone:a=1") for row in rows if row.attack == "random"]
    publish_rows([*gone, *(row for row in rows if row.attack != "random")])
    code, _, err = call("reproduce", "demo", "--executor", "local")
    assert code == 0
    assert (
        "warning: gone:a=1 | none | mlp:depth=2,width=20 | batch 3 iid cannot be run here (unknown attack 'gone'" in err
    )
    assert "1 lines, all agree" in err
    publish_rows(gone)
    code, _, err = call("reproduce", "demo", "--executor", "local")
    assert code == 2
    assert "error: none of the cells of demo can be run here" in err


costs = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 100)), min_size=1, max_size=12)


@given(costs)
def test_a_quick_run_has_each_kind_of_line_and_few_seconds(make_stored, costs):
    pairs = [(make_stored(attack=attack, runtime_s=seconds, seed=n), None) for n, (attack, seconds) in enumerate(costs)]
    kept = [row for row, _ in reproduce.cheap(pairs)]
    assert {row.attack for row in kept} == {attack for attack, _ in costs}
    cheapest = sum(min(s for a, s in costs if a == attack) for attack in {a for a, _ in costs})
    assert sum(row.runtime_s for row in kept) <= max(reproduce.QUICK, cheapest) + 1e-9
    assert [row.seed for row in kept] == sorted(row.seed for row in kept)
    if sum(seconds for _, seconds in costs) <= reproduce.QUICK:
        assert len(kept) == len(costs)


def test_a_quick_run_avoids_what_ran_out_of_time(make_stored):
    pairs = [(make_stored(status="timeout", runtime_s=1.0), None), (make_stored(seed=1, runtime_s=70.0), None)]
    assert [row.seed for row, _ in reproduce.cheap(pairs)] == [1]


def test_every_published_suite_has_a_name_and_every_cell_of_ours_can_still_be_run():
    assert set(publish.FRONT_PAGE) <= set(reproduce.names())
    for name in reproduce.names():
        plan = reproduce.plan(name)
        assert plan.refused == [], name
        assert plan.pairs


def test_the_front_page_is_all_that_its_tables_are_of():
    placed = re.findall(r"<!-- results: (\S+) -->", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert {publish.TABLES[name].suite for name in placed if name in publish.TABLES} == set(publish.FRONT_PAGE)
    assert reproduce.meant("README") == list(publish.FRONT_PAGE)


def test_a_name_without_published_rows_says_which_there_are(call):
    code, _, err = call("reproduce", "smoke")
    assert code == 2
    assert err.startswith("error: no rows are published of 'smoke': name README, or one of ablation, baselines,")
    assert err.count("\n") == 1
