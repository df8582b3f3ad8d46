"""Which cells of a grid are wanted: by value, by share, the first ones."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.axes import expand
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.sweep.choice import Choice, share_of
from gibench.sweep.suite import Suite

GRID = {
    "attack": ["random", "spearpp", "spearpp:without=next-layer", "wrong-gradient:attack=layer-pair"],
    "defense": ["none", "dp", "dp:noise_multiplier=1e-4", "dp+pruning"],
    "batch_size": [4, 8],
    "seed": list(range(6)),
    "device": ["cpu"],
    "threads": [1],
}
CELLS = expand(Cell, GRID)


def chosen(*only, cells=CELLS):
    return Choice.of_options(only, None, None).values(cells)


@pytest.mark.parametrize(
    ("only", "count"),
    [
        (["seed=3"], 1 / 6),
        (["seed=1-2"], 2 / 6),
        (["batch-size=8"], 1 / 2),
        (["batch_size=4", "batch_size=8"], 1),
        (["attack=spearpp"], 2 / 4),
        (["attack=spearpp:without=next-layer"], 1 / 4),
        (["attack=spearpp:without=none"], 1 / 4),
        (["attack=wrong-gradient"], 1 / 4),
        (["defense=dp"], 2 / 4),
        (["defense=dp:noise_multiplier=0.0001"], 1 / 4),
        (["defense=pruning+dp"], 1 / 4),
        (["defense=none"], 1 / 4),
        (["attack=random", "attack=spearpp", "seed=0"], 3 / 4 / 6),
        (["knows=prior,batch_size,local_hyperparameters"], 1),
        (["device=auto", "device=cpu"], 1),
        (["threads=1"], 1),
    ],
)
def test_cells_are_picked_by_their_values(only, count):
    found = chosen(*only)
    assert len(found) == count * len(CELLS)
    assert found == [cell for cell in CELLS if cell in set(found)]


def test_values_are_those_asked_for():
    assert {cell.attack.partition(":")[0] for cell in chosen("attack=spearpp")} == {"spearpp"}
    assert {"without=next-layer" in cell.attack for cell in chosen("attack=spearpp:without=next-layer")} == {True}
    assert {cell.seed for cell in chosen("seed=1-2", "seed=5")} == {1, 2, 5}


@pytest.mark.parametrize(
    ("only", "complaint"),
    [
        ("attack", "--only attack names no value: write AXIS=VALUE"),
        ("colour=red", "--only has no axis 'colour': there are attack, batch_size, dataset"),
        ("attack=spaerpp", "unknown attack 'spaerpp'"),
        ("attack=spearpp:speed=1", "has no setting 'speed'"),
        ("attack=dlg", "none of 192 cells has attack=dlg"),
        ("device=cuda", "none of 192 cells has device=cuda"),
        ("batch_size=many", "batch_size='many' is refused"),
        ("labels=mixed", "labels='mixed' is refused"),
        ("seed=5-3", "seed='5-3' is refused"),
    ],
)
def test_a_wrong_value_is_one_clear_line(only, complaint):
    with pytest.raises(UsageError, match=complaint) as refusal:
        chosen(only)
    assert "\n" not in str(refusal.value)


@settings(max_examples=25)
@given(st.integers(1, 40), st.randoms(use_true_random=False), st.integers(0, len(CELLS)))
def test_each_cell_is_in_one_share_whatever_its_order_and_company(shares, random, count):
    some = random.sample(CELLS, count)
    parts = [Choice.of_options((), f"{share}/{shares}", None).part(some) for share in range(1, shares + 1)]
    assert sorted(cell.key for part in parts for cell in part) == sorted(cell.key for cell in some)
    for share, part in enumerate(parts, start=1):
        assert part == [cell for cell in some if share_of(cell, shares) == share]


def test_a_share_is_the_same_on_another_machine():
    for cell in CELLS:
        assert share_of(replace(cell, threads=64, device="cuda"), 7) == share_of(cell, 7)


def test_shares_are_about_equal():
    counts = [len(Choice.of_options((), f"{share}/4", None).part(CELLS)) for share in range(1, 5)]
    assert min(counts) > 0.6 * max(counts)


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "-1/3", "1/2/3", "a/b", "1.0/2", "", "1/9999999"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(UsageError, match="is no share: write I/N, from 1/N to N/N"):
        Choice.of_options((), text, None)


@given(st.integers(1, 300))
def test_a_limit_takes_the_first(limit):
    assert Choice.of_options((), None, limit).part(CELLS) == CELLS[:limit]


SUITE = {"attack": ["random", "spearpp"], "defense": ["none", "dp"], "seed": ["0-3"], "device": "cpu"}


def cells(**more):
    return Suite.from_settings("the suite", SUITE | more).cells()


def test_a_suite_leaves_out_what_it_excludes():
    left = cells(exclude=[{"attack": "spearpp", "seed": ["1-3"]}, {"attack": "random", "defense": "dp"}])
    shown = [(cell.attack.partition(":")[0], cell.defense.partition(":")[0], cell.seed) for cell in left]
    assert shown == [("random", "none", 0), ("spearpp", "none", 0), ("spearpp", "dp", 0), *(
        ("random", "none", seed) for seed in (1, 2, 3)
    )]  # fmt: skip


def test_exclusions_are_of_all_grids():
    grids = [{"batch_size": 4}, {"batch_size": [4, 8]}]
    assert {cell.batch_size for cell in cells(grids=grids, exclude=[{"batch_size": 4}])} == {8}


def test_what_this_machine_has_not_can_be_excluded():
    assert len(cells(exclude=[{"device": "cuda"}])) == 16


@pytest.mark.parametrize(
    ("exclude", "complaint"),
    [
        ([{"colour": "red"}], "an entry of 'exclude' of the suite None has no axis 'colour'"),
        ([{"attack": "spaerpp"}], "unknown attack 'spaerpp'"),
        ([{"batch_size": "many"}], "batch_size='many' is refused"),
        ([{}], "excludes all of its 16 cells"),
        ([{"seed": [0, 1, 2, 3]}], "excludes all of its 16 cells"),
        ({"attack": "random"}, "exclude=.* is refused"),
        (["random"], "exclude=.* is refused"),
    ],
)
def test_a_wrong_exclusion_is_one_clear_line(exclude, complaint):
    with pytest.raises(UsageError, match=complaint) as refusal:
        cells(exclude=exclude)
    assert "\n" not in str(refusal.value)
