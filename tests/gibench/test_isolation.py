"""What a plugin writes in place, draws or switches changes nothing outside its cell, nor how its own is scored."""

import random

import numpy as np
import pytest
import torch

from gibench import batches, checks, experiment, seeds
from gibench.axes import expand
from gibench.cell import Cell
from gibench.experiment import load
from gibench.threat_model import KNOWLEDGE

EVERYTHING = ",".join(KNOWLEDGE)
pytestmark = pytest.mark.usefixtures("plugins")


@pytest.fixture
def trace(run_one):
    """A function that runs a cell and gives what must be the same each time: its row and what its attack saw."""

    def run(**options):
        from gibench_misbehaving import SEEN

        row = run_one("inspects", **{"knows": EVERYTHING} | options).row
        lasting = {name: value for name, value in row.as_dict().items() if name not in ("runtime_s", "peak_memory_mb")}
        return lasting, [tensor.detach().clone() for tensor in SEEN]

    return run


def forget():
    """Load the data and make the networks anew."""
    experiment.load.cache_clear()
    experiment.trained_model.cache_clear()


def assert_same(one, other):
    assert one[0] == other[0]
    assert len(one[1]) == len(other[1]) > 8
    assert all(torch.equal(*pair) for pair in zip(one[1], other[1], strict=True))


SHARED, SHIFTING = {"model": "shared"}, {"dataset": "shifting"}


@pytest.mark.parametrize(
    ("cell", "between"),
    [
        ({}, {"attack": "overwrites"}),
        ({"defense": "dp"}, {"attack": "overwrites", "defense": "dp"}),
        ({}, {"defense": "careless"}),
        ({}, {"defense": "careless", "model": "shared"}),
        ({"model": "resnet18", "dataset": "digits"}, {"model": "resnet18", "dataset": "digits", "defense": "careless"}),
        ({"defense": "dp"}, {"defense": "careless+dp"}),
        (SHARED, SHARED | {"seed": 1}),
        (SHARED, SHARED | {"train_steps": 3}),
        (SHARED, SHARED | {"defense": "fedavg:epochs=2"}),
        (SHIFTING, SHIFTING | {"dataset": "shifting:level=0.5"}),
        (SHIFTING, SHIFTING | {"attack": "overwrites", "defense": "careless"}),
    ],
)
def test_a_careless_cell_between_two_equal_ones_changes_nothing(cell, between, trace, run_one):
    forget()
    before = trace(**cell)
    run_one(**{"knows": EVERYTHING} | between)
    assert_same(trace(**cell), before)


def test_a_careless_defense_changes_nothing_but_the_update_of_its_own_cell(run_one):
    forget()
    plain, careless = (run_one(defense=defense, labels="unique") for defense in ("none", "careless"))
    same = [name for name in plain.row.as_dict() if name not in ("cell", "defense", "runtime_s", "peak_memory_mb")]
    assert careless.row.status == "ok"
    assert {name: getattr(careless.row, name) for name in same} == {name: getattr(plain.row, name) for name in same}
    assert careless.images.equals(plain.images)


def test_a_careless_defense_does_not_change_what_the_attack_is_told(trace):
    from gibench_misbehaving import SEEN

    forget()
    seen = []
    for defense in ("none", "careless"):
        trace(defense=defense)
        seen.append([tensor.clone() for tensor in SEEN if tensor.dtype == torch.int64 or tensor.shape == (20, 3072)])
    labels = [[tensor for tensor in some if tensor.shape == (4,)] for some in seen]
    weights = [[tensor for tensor in some if tensor.shape == (20, 3072)] for some in seen]
    assert len(labels[0]) == len(labels[1]) == 1
    assert torch.equal(labels[0][0], labels[1][0])
    assert any(torch.equal(tensor, sent) for sent in weights[0] for tensor in weights[1])


def test_an_attack_that_overwrites_the_labels_is_scored_by_the_true_ones(run_one):
    found = run_one("overwrites", knows=EVERYTHING, labels="unique")
    assert (found.row.status, found.row.labels_found) == ("ok", 1.0)


def test_a_careless_defense_does_not_change_what_another_promises(run_one):
    alone, beside = (run_one(defense=chain).row for chain in ("dp", "careless+dp"))
    assert beside.status == "ok"
    for name in ("epsilon", "delta", "accountant", "sampling"):
        assert getattr(beside, name) == getattr(alone, name) is not None


def test_a_data_set_that_draws_from_the_global_generators_gives_the_same_images_each_time():
    found = []
    for ambient in (1, 2):
        forget()
        torch.manual_seed(ambient)
        found.append(load("shifting:level=1.0").private)
    assert torch.equal(found[0].images, found[1].images)
    assert torch.equal(found[0].labels, found[1].labels)


@pytest.mark.parametrize(
    "options",
    [{"attack": "global-rng"}, {"defense": "global-noise"}, {"model": "shared", "train_steps": 2}, SHIFTING],
)
def test_the_globals_are_as_they_were_and_do_not_matter(options, trace, run_one):
    found = []
    for ambient in (1, 2):
        forget()
        torch.manual_seed(ambient)
        np.random.seed(ambient)
        random.seed(ambient)
        states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
        found.append(run_one(**options).row.mse_mean if "attack" in options else trace(**options))
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1].tolist(), random.getstate()) == states[1:]
    if "attack" in options:
        assert found[0] == found[1]
    else:
        assert_same(*found)


def test_preparing_a_cell_draws_from_no_global_generator():
    asked = {"attack": ["random"], "dataset": ["shifting"], "model": ["mlp:width=7"], "batch_size": [2]}
    (cell,) = expand(Cell, asked | {"knows": ["nothing"], "device": ["cpu"]})
    forget()
    checks._check_model.cache_clear()
    state = torch.get_rng_state()
    checks.check(cell)
    assert torch.equal(torch.get_rng_state(), state)


def test_each_role_draws_from_a_seed_of_its_own(run_one):
    from gibench_misbehaving import NOTED

    forget()
    NOTED.clear()
    run_one("notes", defense="notes", model="shared", seed=7)
    assert {
        "model": seeds.derive(7, "model"),
        "defense": (seeds.derive(7, "defense"), seeds.derive(7, "client")),
        "attack": (seeds.derive(7, "attack"),) * 2,
    } == NOTED


def test_the_batch_is_drawn_from_the_seed_of_the_data(run_one):
    found = run_one(seed=7)
    images = load("photos")
    truth = batches.draw(images, 4, "iid", 1, seeds.generator(7, "data"))
    grey = images.public.images.mean(0)
    assert found.row.mse_mean == pytest.approx(float((truth.images - grey).square().mean()), rel=1e-4)


def test_every_seed_has_a_network_of_its_own(trace):
    forget()
    seen = [[tensor for tensor in trace(seed=seed)[1] if tensor.shape == (20, 3072)] for seed in (0, 1)]
    assert all(seen)
    assert not any(torch.equal(one, other) for one in seen[0] for other in seen[1])
