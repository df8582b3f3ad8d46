"""Cells are canonical, and their key is made of all that decides the result."""

from dataclasses import fields, replace
from importlib.metadata import version

import pytest

from gibench.axes import expand
from gibench.cell import Cell
from gibench.errors import UsageError
from gibench.job import _code_of
from gibench.registry import find

AXES = {
    "attack": ["random"],
    "defense": ["none"],
    "dataset": ["photos"],
    "model": ["mlp"],
    "train_steps": [0],
    "mode": ["train"],
    "batch_size": [4],
    "labels": ["iid"],
    "knows": ["batch_size"],
    "seed": [0],
    "device": ["cpu"],
    "dtype": ["float32"],
    "split": ["private"],
    "threads": [1],
}


def one(**axes):
    (cell,) = expand(Cell, AXES | {name: [value] for name, value in axes.items()})
    return cell


def test_specs_become_canonical_with_every_default():
    cell = one(model="mlp:width=0200", defense="none+dp", knows="prior,batch_size")
    assert cell.model == "mlp:depth=5,width=200"
    assert cell.defense == (
        "dp:clipping=flat,delta=1e-05,max_grad_norm=1.0,noise_multiplier=1.0,on=step,run_steps=1000,sampling=poisson,"
        "target_epsilon=none"
    )
    assert cell.knows == "batch_size,prior"


def test_what_plugins_are_is_found_out_once_for_all_cells_that_have_them(monkeypatch):
    first, *others = expand(Cell, AXES | {"seed": range(5)})
    assert first.key
    assert not first.is_prepared_by_others
    for name in ("find", "create", "parse_chain"):
        monkeypatch.setattr(f"gibench.job.{name}", pytest.fail)
    assert len({cell.key for cell in others} - {first.key}) == 4
    assert not any(cell.is_prepared_by_others for cell in others)


def test_the_device_is_the_one_found_here():
    assert one(device="auto").device in ("cpu", "cuda")


def test_cells_are_the_product_and_attacks_vary_fastest():
    cells = expand(Cell, AXES | {"attack": ["random", "mean-image"], "defense": ["none", "dp"], "seed": [3, 1]})
    shown = [(cell.seed, cell.defense.partition(":")[0], cell.attack) for cell in cells]
    attacks = ("random", "mean-image")
    assert shown == [(seed, defense, attack) for seed in (3, 1) for defense in ("none", "dp") for attack in attacks]


def test_two_ways_to_write_one_cell_make_one():
    assert len(expand(Cell, AXES | {"model": ["mlp", "mlp:width=200", "mlp:depth=5,width=200"], "seed": [1, 1]})) == 1


def test_the_same_cell_has_the_same_key():
    assert one().key == one(model="mlp:depth=5").key
    assert len(one().key) == 16
    assert int(one().key, 16) >= 0


def test_everything_but_the_timeout_is_part_of_the_key():
    other = {
        "attack": "mean-image", "defense": "dp", "dataset": "digits", "model": "linear", "train_steps": 1,
        "batch_size": 5, "labels": "same", "knows": "nothing", "seed": 1, "device": "cuda", "dtype": "float64",
        "split": "tuning", "threads": 2, "mode": "eval",
    }  # fmt: skip
    cells = [one(), *(replace(one(), **{name: value}) for name, value in other.items())]
    assert len({cell.key for cell in cells}) == len(cells)
    assert {*other, "timeout"} == {field.name for field in fields(Cell)}
    assert replace(one(), timeout=5.0).key == one().key


@pytest.mark.usefixtures("plugins")
def test_the_versions_are_those_of_the_distributions_in_the_cell():
    ours = {"gibench": version("gibench")}
    assert one().versions == ours
    assert one(attack="finds-nothing").versions == ours | {"gibench-misbehaving": "1.2.3"}
    assert one(defense="poison").versions == ours | {"gibench-misbehaving": "1.2.3"}


@pytest.mark.parametrize(
    ("axis", "value", "complaint"),
    [
        ("attack", "nobody", "unknown attack 'nobody'"),
        ("defense", "none+wall", "unknown defense 'wall'"),
        ("defense", "dp+dp", "names dp twice"),
        ("dataset", "imagenet", "unknown dataset 'imagenet'"),
        ("model", "mlp:width=0", "width='0' is refused"),
        ("knows", "everything", "unknown knowledge 'everything'"),
        ("device", "tpu", "unknown device 'tpu'"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_runs(axis, value, complaint):
    with pytest.raises(UsageError, match=complaint):
        one(**{axis: value})


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize("changed", ["gibench", "gibench-misbehaving"])
def test_another_version_of_the_code_is_another_cell(changed, monkeypatch):
    numbers = ["1.0"]

    def found(kind, name):
        entry = find(kind, name)
        return replace(entry, version=numbers[-1]) if entry.distribution == changed else entry

    monkeypatch.setattr("gibench.job.find", found)
    keys = set()
    for number in ("1.0", "1.0", "1.1"):
        numbers.append(number)
        _code_of.cache_clear()
        keys.add(one(attack="finds-nothing").key)
    _code_of.cache_clear()
    assert len(keys) == 2
