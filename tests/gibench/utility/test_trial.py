"""Training with and without defenses: what is learned, on whose images, and what it takes."""

from dataclasses import replace

import pytest
import torch

from gibench import seeds, training
from gibench.axes import canonical_defense
from gibench.errors import UsageError
from gibench.experiment import load
from gibench.registry import create, resolve
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


def test_epsilon_is_that_of_a_round():
    result = run_trial(make("dp", rounds=1), lambda message, fraction: None)
    assert result.row.epsilon == pytest.approx(4.377, abs=1e-3)
    assert result.provenance["defense_costs"]["sample_rate"] == 20 / 658


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
