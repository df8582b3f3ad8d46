"""Penalties on images, against cases computed by hand."""

import math

import pytest
import torch

from gibench.attacks.optimization import priors


def batch(*rows):
    """One restart of one grey image."""
    return torch.tensor(rows, dtype=torch.float64)[None, None, None]


def test_total_variation_is_the_mean_step_across_plus_the_mean_step_down():
    images = batch([0.0, 1.0, 3.0], [0.0, -1.0, -1.0])
    across, down = (1 + 2 + 1 + 0) / 4, (0 + 2 + 4) / 3
    assert priors.total_variation(images).tolist() == pytest.approx([across + down])


def test_total_variation_of_a_flat_image_is_zero():
    assert priors.total_variation(torch.full((2, 3, 3, 5, 4), 0.7)).tolist() == [0, 0]


def test_the_slope_of_the_total_variation_is_its_derivative():
    images = torch.randn(2, 1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(priors.total_variation, (images,))


def test_color_total_variation_is_isotropic():
    images = batch([0.0, 3.0], [4.0, 9.0])
    assert priors.color_total_variation(images).tolist() == pytest.approx([5])


def test_color_total_variation_counts_channels_and_their_differences():
    step = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    images = torch.zeros(1, 1, 3, 2, 2, dtype=torch.float64)
    images[0, 0, :, :, 1] = step[:, None]
    expected = (1 + 2 + 4 + abs(1 - 2) + abs(1 - 4) + abs(2 - 4)) / 6
    assert priors.color_total_variation(images).tolist() == pytest.approx([expected])


def test_color_total_variation_has_a_slope_where_the_image_is_flat():
    images = torch.zeros(1, 1, 3, 4, 4, requires_grad=True)
    priors.color_total_variation(images).sum().backward()
    assert images.grad.isfinite().all()


def test_squares_are_half_the_mean_square_of_each_restart():
    images = torch.stack([torch.full((2, 3, 4, 4), 2.0), torch.full((2, 3, 4, 4), 3.0)])
    assert priors.squares(images).tolist() == [2, 4.5]


def test_batch_statistics_are_distances_of_means_and_variances_with_the_first_layer_tenfold():
    values = torch.tensor([[1.0, 0.0], [3.0, 0.0]])[None]  # one restart, two images, two channels
    granted = {
        f"{layer}.{key}": torch.tensor(numbers)
        for layer in ("first", "second")
        for key, numbers in (("mean", [2.0, 3.0]), ("var", [1.0, 4.0]))
    }
    inputs = {"first": values, "second": values}
    assert priors.batch_statistics(inputs, granted).tolist() == pytest.approx([(10 + 1) * (3 + 4)])


def test_measured_features_are_rows_over_biases_and_zero_without_any():
    weight, bias = torch.tensor([[2.0, 4.0], [5.0, 6.0]]), torch.tensor([-2.0, 0.0])
    measured = priors.measured_features(weight, bias, torch.tensor([0, 1]))
    assert measured.tolist() == [[-1, -2], [0, 0]]


def test_features_are_the_mean_squared_distance():
    values, measured = torch.tensor([[[1.0, 2.0]], [[0.0, 0.0]]]), torch.tensor([[1.0, 4.0]])
    assert priors.features(values, measured).tolist() == pytest.approx([2, math.fsum([1, 16]) / 2])
