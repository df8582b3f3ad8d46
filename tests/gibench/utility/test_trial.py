"""Training with and without defenses: what is learned, on whose images, and what it takes."""

from dataclasses import fields, replace

import pytest
import torch
from dp_accounting import (
    GaussianDpEvent,
    NeighboringRelation,
    SampledWithoutReplacementDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant

from gibench import chain, seeds, training
from gibench.axes import canonical_defense
from gibench.errors import UsageError
from gibench.experiment import load
from gibench.registry import create, resolve
from gibench.result import Promise
from gibench.utility import trial as module
from gibench.utility.job import Trial
from gibench.utility.trial import check, run_trial

MODEL = "mlp:width=30,depth=1"


def make(defense="none", dataset="digits", model=MODEL, batch_size=20, rounds=120, seed=0):
    specs = str(resolve("dataset", dataset)), str(resolve("model", model))
    return Trial(*specs, "cpu", 1, batch_size, rounds, canonical_defense(defense), seed)


def trained(*arguments, **options):
    return run_trial(make(*arguments, **options), lambda message, fraction: None).row


def lasting(row):
    return replace(row, round_s=None)


def test_without_a_defense_the_model_learns():
    row = trained(rounds=200)
    assert (row.status, row.epsilon) == ("ok", None)
    assert row.accuracy > 0.8
    assert row.loss < 0.8
    assert row.round_s > 0


def test_more_noise_costs_more_accuracy():
    accuracies = [trained(f"noise:std={std}").accuracy for std in ("1e-6", "0.03", "10")]
    assert accuracies[0] > accuracies[1] + 0.05 > accuracies[2] + 0.1
    assert accuracies[2] < 0.3


def test_without_noise_it_is_training_itself():
    """The steps of `gibench.training.train` on the same minibatches."""
    images, row = load("digits"), trained(rounds=10)
    with seeds.isolated(0, "model"):
        network = create("model", MODEL).build(images.image_shape, images.num_classes)
    optimizer, draw = torch.optim.Adam(network.parameters(), lr=1e-3), seeds.generator(0, "data")
    for _ in range(10):
        chosen = torch.randperm(len(images.training), generator=draw)[:20]
        logits = network(training.model_inputs(network, images, images.training.images[chosen]))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, images.training.labels[chosen]).backward()
        optimizer.step()
    assert row.accuracy == pytest.approx(training.accuracy(network, images, images.private), abs=2e-3)


def test_a_weight_delta_is_added_as_it_is():
    slow, fast = (trained(f"fedavg:epochs=1,lr={lr}", rounds=60).accuracy for lr in (1e-5, 0.3))
    assert slow < 0.3
    assert fast > 0.7


def test_the_same_trial_gives_the_same_bits():
    assert lasting(trained("dp+fedavg:clients=2,epochs=1", rounds=3)) == lasting(
        trained("dp+fedavg:clients=2,epochs=1", rounds=3)
    )
    assert lasting(trained(rounds=3)) != lasting(trained(rounds=3, seed=1))


def test_only_training_images_are_trained_on_and_only_private_ones_tested_on(monkeypatch):
    images, seen = load("digits"), []
    inputs = training.model_inputs

    def listen(model, images, pixels):
        seen.append((torch.is_grad_enabled(), pixels))
        return inputs(model, images, pixels)

    monkeypatch.setattr(training, "model_inputs", listen)
    trained(rounds=5)
    known = {tuple(each.flatten().tolist()) for each in images.training.images}
    hidden = {tuple(each.flatten().tolist()) for each in images.private.images}
    assert not known & hidden
    shown = [tuple(each.flatten().tolist()) for learning, pixels in seen if learning for each in pixels]
    tested = {tuple(each.flatten().tolist()) for learning, pixels in seen if not learning for each in pixels}
    assert len(shown) == 100
    assert set(shown) <= known
    assert tested == hidden


def test_bytes_are_those_of_what_is_sent():
    full, pruned, signs = (
        trained(defense, rounds=1).round_bytes
        for defense in ("noise:std=1e-9", "pruning:sparsity=0.9", "quantize:bits=1")
    )
    entries = 64 * 30 + 30 + 30 * 10 + 10
    assert full == 4 * entries
    assert pruned == pytest.approx(entries / 8 + 0.1 * 4 * entries, rel=0.05)
    assert signs < 0.08 * full


def test_the_row_states_what_the_run_promised():
    row = trained("dp:max_grad_norm=0.5", rounds=3)
    assert row.epsilon == pytest.approx(4.377, abs=1e-3)  # of a round
    assert {name: getattr(row, name) for name in ("delta", "max_grad_norm", "noise_multiplier", "run_steps")} == {
        "delta": 1e-5,
        "max_grad_norm": 0.5,
        "noise_multiplier": 1.0,
        "run_steps": 3,
    }
    solved = trained("dp:target_epsilon=8", rounds=1)
    assert (solved.epsilon, solved.noise_multiplier) == (pytest.approx(8), pytest.approx(0.6, abs=0.05))
    nothing = trained("dp:noise_multiplier=0", rounds=1)
    assert {getattr(nothing, each.name) for each in fields(Promise)} == {None}


def promised(defense, rounds=300):
    """What a run of batches of 20 of the 658 images of digits promises."""
    images, asked = load("digits"), make(defense, rounds=rounds)
    defenses = module._defenses(asked)
    context = chain.context_of(defenses, torch.Generator(), 20, len(images.training), rounds)
    return chain.guarantee(defenses, context)


def test_the_epsilon_of_a_run_is_that_of_its_rounds_and_its_sampler():
    """Both by the accountants themselves: 300 rounds at rate 20 / 658."""
    poisson, fixed = promised("dp"), promised("dp:sampling=fixed")
    accountant = PRVAccountant()
    accountant.history = [(1.0, 20 / 658, 300)]
    assert poisson.run_epsilon == pytest.approx(accountant.get_epsilon(1e-5, eps_error=0.01), abs=0.03)
    replaced = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_ONE)
    step = SampledWithoutReplacementDpEvent(658, 20, GaussianDpEvent(0.5))  # replacing moves the sum by two clip norms
    expected = replaced.compose(SelfComposedDpEvent(step, 300)).get_epsilon(1e-5)
    assert fixed.run_epsilon == pytest.approx(expected, rel=1e-9)
    assert fixed.run_epsilon == pytest.approx(38.96, abs=0.01)
    assert poisson.run_epsilon == pytest.approx(3.41, abs=0.01)
    assert poisson.costs["run_epsilon_rdp"] == pytest.approx(3.87, abs=0.01)
    assert (poisson.run_steps, fixed.run_steps) == (300, 300)
    assert promised("dp:run_steps=5", rounds=10) == promised("dp", rounds=10)  # what was planned does not matter
    assert "Poisson" in poisson.sampling
    assert "fixed-size" in fixed.sampling


def batches_of(monkeypatch, defense, **options):
    """The number of images of each client in each round, and the training's row."""
    seen, run = [], chain.run

    def listen(defenses, gradient, parameters, batches, context):
        seen.append([len(batch.labels) for batch in batches])
        return run(defenses, gradient, parameters, batches, context)

    monkeypatch.setattr(chain, "run", listen)
    return seen, trained(defense, **options)


def test_what_is_accounted_as_poisson_is_drawn_so(monkeypatch):
    """Batches of one image at a rate of 1 / 658: many are empty, some are of more."""
    seen, row = batches_of(monkeypatch, "dp", batch_size=1, rounds=60)
    sizes = [size for (size,) in seen]
    assert {0, 1, 2} <= set(sizes)
    assert sum(sizes) == pytest.approx(60, abs=20)
    assert row.status == "ok"
    assert row.run_steps == 60


@pytest.mark.parametrize(
    "defense", ["none", "dp:sampling=fixed", "dp:noise_multiplier=0", "fedavg:clients=2", "pruning"]
)
def test_all_else_is_drawn_in_batches_of_a_fixed_size(monkeypatch, defense):
    seen, _ = batches_of(monkeypatch, defense, rounds=3)
    assert seen == [[20] * (2 if "clients" in defense else 1)] * 3


@pytest.mark.parametrize("local", ["", "+fedavg:clients=2,epochs=2,lr=0.1,local_batch_size=8"])
def test_client_level_dp_samples_clients_who_keep_their_images(monkeypatch, local):
    seen, row = batches_of(monkeypatch, f"dp:on=update{local}", rounds=30)
    assert {size for sizes in seen for size in sizes} == {20}
    assert 0 in {len(sizes) for sizes in seen}  # a round that nobody takes part in
    assert len({len(sizes) for sizes in seen}) > 2
    assert row.status == "ok"


def test_local_steps_of_a_poisson_sample_have_public_sizes():
    row = trained("dp:noise_multiplier=0.01+fedavg:epochs=2,lr=0.1,local_batch_size=6", rounds=5)
    assert row.status == "ok"


def test_a_run_that_ends_early_has_the_epsilon_of_its_rounds():
    row = trained("dp+fedavg:lr=1e39,epochs=2", rounds=50)
    assert row.status == "diverged"
    assert row.run_steps == 20
    assert row.run_epsilon == promised("dp+fedavg:lr=1e39,epochs=2", rounds=20).run_epsilon


def test_what_can_never_apply_is_skipped_with_the_reason():
    row = trained("dp", model="resnet18")
    assert row.status == "skipped"
    assert "BatchNorm" in row.reason
    assert row.accuracy is None


def test_a_model_that_is_blown_up_has_diverged():
    row = trained("fedavg:lr=1e30,epochs=3", rounds=5)
    assert row.status == "diverged"
    assert row.loss is None
    assert row.accuracy < 0.3


def test_batchnorm_is_tested_with_the_statistics_of_the_training_images():
    torch.manual_seed(0)
    images = load("digits")
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10))
    module._batchnorm_statistics(network, images)
    assert float(network[0].running_mean) == pytest.approx(0, abs=0.01)  # they are normalised
    assert float(network[0].running_var) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"dataset": "lfw"}, "lfw has 73 images to train on, and an accuracy from fewer than 500 says nothing"),
        ({"batch_size": 659}, "a round of 659 images is more than the 658 of digits to train on"),
        ({"defense": "fedavg:clients=40"}, "a round of 800 images is more than the 658"),
    ],
)
def test_what_says_nothing_is_refused(options, complaint):
    trial = make(**options)
    with pytest.raises(UsageError, match=complaint):
        check(trial, load(trial.dataset))


def test_the_key_is_of_everything_that_is_asked_for():
    trials = [make(), make("dp"), make(model="linear"), make(batch_size=4), make(rounds=1), make(seed=1)]
    assert len({trial.key for trial in trials}) == len(trials)
    assert make("dp").key == make("dp:noise_multiplier=1.0").key
