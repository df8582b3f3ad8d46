"""A control is shown the update of real images that no client holds, made as that of the truth is."""

import pytest
import torch

from gibench import foreign, seeds
from gibench.experiment import load, run_cell
from gibench.sweep.suite import Suite

pytestmark = pytest.mark.usefixtures("plugins")


def run(attack, **options):
    suite = {"attack": attack, "model": "mlp:width=20,depth=2", "batch_size": 4, "device": "cpu"} | options
    (only,) = Suite.from_settings("suite", suite).cells()
    return run_cell(only, lambda message, fraction=None: None)


def seen(attack, **options):
    """Every tensor that the cell's attack could reach, in words, so that two runs can be compared."""
    from gibench_misbehaving import SEEN

    run(attack, **options)
    return sorted((tuple(tensor.shape), tensor.double().sum().item()) for tensor in SEEN)


def drawn(labels="iid", size=4, clients=1, seed=0):
    return foreign.draw(load("digits"), size, labels, clients, seeds.generator(seed, "data"))


def images_of(split):
    return {image.numpy().tobytes() for image in split.images}


@pytest.mark.parametrize("labels", ["iid", "unique", "same"])
def test_the_batch_is_public_and_follows_the_rule_of_labels(labels):
    images, (batch, notes) = load("digits"), drawn(labels)
    assert notes == {}
    assert images_of(batch) <= images_of(images.public)
    assert not images_of(batch) & images_of(images.private)
    assert len(images_of(batch)) == 4
    kinds = len(set(batch.labels.tolist()))
    assert {"iid": kinds > 0, "unique": kinds == 4, "same": kinds == 1}[labels]


def test_another_seed_draws_another_batch_and_the_same_seed_the_same():
    assert torch.equal(drawn(seed=3)[0].images, drawn(seed=3)[0].images)
    assert not torch.equal(drawn(seed=3)[0].images, drawn(seed=4)[0].images)


@pytest.mark.parametrize(("labels", "size", "clients"), [("unique", 11, 1), ("iid", 700, 1), ("same", 100, 4)])
def test_where_the_public_split_holds_no_such_batch_a_note_says_how_it_was_drawn(labels, size, clients):
    batch, notes = drawn(labels, size, clients)
    public = images_of(load("digits").public)
    assert len(batch) == size * clients
    assert images_of(batch) <= public
    assert len(images_of(batch)) == min(size * clients, len(public))  # none twice before all were taken
    assert "drawn iid" in notes["other_batch"]


@pytest.mark.parametrize("defense", ["none", "dp", "fedavg:epochs=2,lr=0.1+pruning"])
def test_the_control_sees_what_the_same_client_makes_of_the_other_batch(defense, monkeypatch):
    """To the last bit what an attack sees whose truth is that batch."""
    options = {
        "defense": defense,
        "dataset": "digits",
        "knows": "batch_size,labels,local_hyperparameters,bn_statistics,prior",
    }
    control, true = seen("wrong-gradient:attack=inspects", **options), seen("inspects", **options)
    monkeypatch.setattr("gibench.experiment.draw", lambda cell: drawn()[0])
    assert control == seen("inspects", **options)
    assert control != true


def test_the_row_is_that_of_the_truth_and_the_note_is_logged():
    options = {"dataset": "digits", "batch_size": 700, "labels": "iid"}
    control, plain = run("wrong-gradient:attack=random", **options), run("random", **options)
    assert "drawn iid" in control.diagnostics["other_batch"]
    for column in ("status", "grad_norm", "n_true", "duplicate_labels", "mse_mean"):
        assert getattr(control.row, column) == getattr(plain.row, column)


def test_a_control_of_an_adaptive_attack_is_an_adaptive_row():
    row = run("wrong-gradient:attack='dlg-adaptive:max_iterations=1'", defense="fedavg:epochs=2,lr=0.1").row
    assert (row.status, row.adaptive) == ("ok", True)
    assert run("wrong-gradient:attack=analytic").row.adaptive is False
