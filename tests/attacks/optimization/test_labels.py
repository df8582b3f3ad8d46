"""Labels are read off the last layer's gradient, on planted batches with repeats."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from gibench.attacks.optimization import labels
from gibench.observation import Observation, ThreatModel, Update

CLASSES = 10


def planted(targets, spread=0.1, seed=0):
    """A net with hardly any preference among classes, and the gradient of a batch with these labels."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, CLASSES))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(len(targets), 20, generator=generator)
    loss = functional.cross_entropy(model(inputs), torch.tensor(targets))
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return model, {name: part for (name, _), part in zip(model.named_parameters(), gradient, strict=True)}


def inferred(strategy, targets, **options):
    model, gradient = planted(targets, **options)
    return labels.infer(strategy, gradient, labels.output_layer(model, CLASSES), len(targets)).tolist()


@pytest.mark.parametrize("strategy", ["idlg", "analytic", "bias-corrected", "wainakh"])
@pytest.mark.parametrize("label", [0, 4, 9])
def test_the_label_of_one_image_is_found(strategy, label):
    assert inferred(strategy, [label]) == [label]


@pytest.mark.parametrize("strategy", ["idlg", "analytic", "bias-corrected", "wainakh"])
def test_different_labels_are_all_found(strategy):
    assert inferred(strategy, [7, 1, 3, 8]) == [1, 3, 7, 8]


@pytest.mark.parametrize("strategy", ["bias-corrected", "wainakh"])
@pytest.mark.parametrize("targets", [[2, 2, 2, 5], [0, 0, 1, 1, 9], [6] * 5, [3, 3, 4, 5, 5]])
def test_repeats_are_counted(strategy, targets):
    assert inferred(strategy, targets, spread=0.02) == sorted(targets)


def test_the_analytic_rule_repeats_the_classes_it_sees_in_turn():
    assert inferred("analytic", [2, 2, 2, 5]) == [2, 2, 5, 5]


@pytest.mark.parametrize("strategy", ["idlg", "analytic", "bias-corrected", "wainakh"])
def test_as_many_labels_as_images_come_out_even_of_noise(strategy):
    generator = torch.Generator().manual_seed(1)
    gradient = {"w.weight": torch.randn(3, 4, generator=generator), "w.bias": torch.randn(3, generator=generator)}
    assert len(labels.infer(strategy, gradient, "w", 7)) == 7


@pytest.mark.parametrize("strategy", ["idlg", "analytic", "bias-corrected", "wainakh"])
def test_a_weight_delta_gives_the_labels_of_the_gradient_it_came_from(strategy):
    targets = [1, 4, 4, 6]
    model, gradient = planted(targets)
    seen = Observation(
        model, Update(gradient), (1, 4, 5), torch.zeros(1), torch.ones(1), CLASSES, ThreatModel(frozenset())
    )
    delta = replace(seen, update=Update({name: -0.3 * part for name, part in gradient.items()}, "weight_delta"))
    layer = labels.output_layer(model, CLASSES)
    found = [labels.infer(strategy, observation.gradient(), layer, 4).tolist() for observation in (seen, delta)]
    assert found[0] == found[1]


def test_the_output_layer_is_the_last_linear_one_with_a_bias_and_an_output_a_class():
    model = nn.Sequential(nn.Linear(4, CLASSES), nn.ReLU(), nn.Linear(CLASSES, CLASSES))
    assert labels.output_layer(model, CLASSES) == "2"
    assert labels.output_layer(nn.Sequential(nn.Linear(4, CLASSES, bias=False)), CLASSES) is None
