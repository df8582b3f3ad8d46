"""Distances between gradients, against cases computed by hand, and their slopes against finite differences."""

import math

import pytest
import torch

from gibench.attacks.optimization import objectives

TARGET = [torch.tensor([3.0, 0.0]), torch.tensor([4.0]), torch.tensor([0.0])]
CANDIDATE = [torch.tensor([[0.0, 3.0]]), torch.tensor([[4.0]]), torch.tensor([[2.0]])]
LAYERS = [0, 0, 1]


def value(name, gradient=CANDIDATE, target=TARGET, layers=LAYERS):
    return objectives.make(name, target, layers)(gradient)[0].tolist()


def test_l2_is_the_squared_difference_over_the_observed_square():
    assert value("l2") == pytest.approx([(9 + 9 + 0 + 4) / 25])


def test_l2_per_layer_is_the_sum_of_the_layers_norms_over_those_of_the_observed_one():
    assert value("l2-per-layer") == pytest.approx([(math.sqrt(18) + 2) / (5 + 0)])


def test_l1_is_the_absolute_difference_over_the_observed_one():
    assert value("l1") == pytest.approx([(3 + 3 + 0 + 2) / 7])


def test_cosine_joins_all_layers():
    assert value("cosine") == pytest.approx([1 - 16 / (5 * math.sqrt(29))])


def test_cosine_per_layer_leaves_out_a_layer_whose_observed_gradient_is_zero():
    assert value("cosine-per-layer") == pytest.approx([1 - 16 / (5 * 5)])


def test_cosine_per_layer_is_the_mean_over_layers():
    target = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])]
    candidate = [torch.tensor([[5.0, 0.0]]), torch.tensor([[1.0, 0.0]])]
    assert value("cosine-per-layer", candidate, target, [0, 1]) == pytest.approx([(0 + 1) / 2])


@pytest.mark.parametrize("name", ["cosine", "cosine-per-layer", "l2", "l2-per-layer", "l1"])
def test_the_observed_gradient_itself_is_at_distance_zero(name):
    assert value(name, [part[None] for part in TARGET]) == pytest.approx([0], abs=1e-6)


@pytest.mark.parametrize("name", ["cosine", "cosine-per-layer"])
def test_a_cosine_does_not_depend_on_the_scale(name):
    assert value(name, [7 * part for part in CANDIDATE]) == pytest.approx(value(name))


@pytest.mark.parametrize("name", ["cosine", "cosine-per-layer", "l2", "l2-per-layer", "l1"])
def test_slopes_are_derivatives_and_restarts_do_not_mix(name):
    torch.manual_seed(0)
    sizes, restarts, step = (4, 3, 2), 2, 1e-6
    target = [torch.randn(size, dtype=torch.float64) for size in sizes]
    gradient = [torch.randn(restarts, size, dtype=torch.float64) for size in sizes]
    objective = objectives.make(name, target, [0, 1, 1])
    here, slopes = objective(gradient)
    for part, slope in zip(gradient, slopes, strict=True):
        for restart in range(restarts):
            for entry in range(part.shape[1]):
                part[restart, entry] += step
                rise = (objective(gradient)[0] - here) / step
                part[restart, entry] -= step
                expected = torch.zeros(restarts, dtype=torch.float64)
                expected[restart] = slope[restart, entry]
                assert torch.allclose(rise, expected, atol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "cosine-per-layer", "l2-per-layer"])
def test_a_zero_gradient_has_a_finite_value_and_slope(name):
    result, slopes = objectives.make(name, TARGET, LAYERS)([torch.zeros_like(part) for part in CANDIDATE])
    assert result.isfinite().all()
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_layers_that_match_have_no_slope_in_l2_per_layer(scale):
    target = [scale * part for part in TARGET]
    result, slopes = objectives.make("l2-per-layer", target, LAYERS)([part[None] for part in target])
    assert result.tolist() == [0]
    assert all(not slope.any() for slope in slopes)
