"""Labels counted by what the network predicts: few classes, clipped gradients, features of several classes at once."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from gibench.attacks.optimization import class_counts
from gibench.attacks.optimization.class_counts import Reference
from gibench.observation import Observation, ThreatModel, Update


def planted(targets, classes, seed, spread=0.02):
    """The last layer's gradient of a batch in a net with hardly any preference, and what a server knows of it."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, classes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(len(targets), 20, generator=generator)
    loss = functional.cross_entropy(model(inputs), torch.tensor(targets))
    gradient = torch.autograd.grad(loss, [model[3].weight, model[3].bias])
    plain = torch.zeros(1), torch.ones(1), classes, ThreatModel(frozenset())
    return *gradient, Reference.of(Observation(model, Update({}), (1, 4, 5), *plain), "3")


def inferred(targets, classes, seed, factor=1.0):
    weight, bias, reference = planted(targets, classes, seed)
    return class_counts.infer(factor * weight, factor * bias, reference, len(targets)).tolist()


seeds = st.integers(0, 999)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=24), seeds)
def test_both_of_two_classes_are_counted(targets, seed):
    assert inferred(targets, 2, seed) == sorted(targets)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.integers(2, 12).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), min_size=1))), seeds)
def test_of_any_number_of_classes_each_is_counted(batch, seed):
    classes, targets = batch
    assert inferred(targets, classes, seed) == sorted(targets)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.integers(3, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.integers(0, n - 1), min_size=1, max_size=n - 1))
    ),
    seeds,
    st.floats(1e-4, 0.45),
)
def test_a_gradient_is_known_to_be_clipped_where_some_class_must_be_missing(batch, seed, factor):
    classes, targets = batch
    assert inferred(targets, classes, seed, factor) == sorted(targets)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("seed", range(4))
def test_no_whole_numbers_are_nearer_to_the_predictions_than_is_said(size, seed):
    probabilities = torch.rand(3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    probabilities /= probabilities.sum()
    every = (torch.tensor(counts) for counts in product(range(size + 1), repeat=3) if sum(counts) == size)
    least = min(float((1 - counts / (size * probabilities)).max()) for counts in every)
    assert float(class_counts._nearest(probabilities, size)) == pytest.approx(least, abs=1e-12)


def test_features_are_told_apart_where_every_row_is_a_sum_over_all_classes():
    """Three classes with features of their own, of which the network has learnt to favour the first for all images.

    The mean prediction for an image in general is nobody's, and every class's row is as much the others' as its own.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))
    directions = torch.eye(3).repeat_interleave(5, 1)
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[:, :15] = 0.3 * directions
        model[1].bias.copy_(torch.tensor([0.5, 0.0, -0.5]))
    targets = [0] * 3 + [1] * 8 + [2] * 9
    shown = torch.tensor([0] * 3 + [1] * 8 + [2] * 9)
    inputs = 0.5 + torch.zeros(len(targets), 20)
    inputs[:, :15] += 0.8 * directions[shown]
    loss = functional.cross_entropy(model(inputs), torch.tensor(targets))
    weight, bias = torch.autograd.grad(loss, list(model.parameters()))
    plain = torch.zeros(1), torch.ones(1), 3, ThreatModel(frozenset())
    reference = Reference.of(Observation(model, Update({}), (1, 4, 5), *plain), "1")
    assert class_counts.infer(weight, bias, reference, len(targets)).tolist() == targets
    rounded = (len(targets) * (reference.probabilities - bias.double())).round()
    assert rounded.tolist() != [3, 8, 9]
    alone = class_counts._row_by_row(weight.double(), bias.double(), reference)
    assert (len(targets) * alone).round().tolist() != [3, 8, 9]
