"""Supports that an image in the row space explains, and others."""

import pytest
import torch

from gibench.attacks.exact.linear_layer import features
from gibench.attacks.spearpp.noise import separate


@pytest.mark.parametrize("shape", [(20, 200, 300), (8, 60, 40), (40, 200, 50)])
def test_features_times_the_rows_of_the_inverse_are_the_pre_activations(plant, shape):
    planted = plant(*shape)
    factors = planted.factors()
    coefficients = torch.linalg.inv(factors.basis.T @ planted.columns / shape[1])  # row i: c_i
    expected = planted.layer.weight @ planted.inputs.T + planted.layer.bias[:, None]
    torch.testing.assert_close(features(factors, planted.layer) @ coefficients.T, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(20, 200, 300), (12, 300, 40), (64, 400, 100)])
def test_true_supports_are_separable(plant, shape, seed):
    planted = plant(*shape, seed)
    factors = planted.factors()
    share, _ = separate(features(factors, planted.layer), planted.zeros)
    assert share.min() >= 0.985


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(20, 200, 300), (12, 300, 40)])  # m > 4 B
def test_the_supports_of_random_mixtures_are_not_separable(plant, shape, seed):
    planted = plant(*shape, seed)
    factors = planted.factors()
    weights = torch.randn(shape[0], 100, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    columns = (planted.columns @ weights).abs()
    share, _ = separate(features(factors, planted.layer), columns <= columns.median(dim=0).values)
    assert share.max() < 0.985


def test_the_support_of_two_unrelated_images_is_not_separable(plant):
    planted = plant(20, 200, 300)
    share, _ = separate(features(planted.factors(), planted.layer), planted.zeros[:, 0::2] & planted.zeros[:, 1::2])
    assert share.max() < 0.985


def test_the_side_of_each_neuron_is_that_of_the_best_fit(plant):
    planted = plant(12, 300, 40)
    zeros = planted.zeros.clone()
    zeros[7, 0] ^= True
    share, active = separate(features(planted.factors(), planted.layer), zeros)
    torch.testing.assert_close(share, (active == ~zeros).double().mean(dim=0), rtol=0, atol=1e-6)


def test_a_small_active_entry_taken_for_a_zero_is_put_on_the_active_side(plant):
    planted = plant(10, 400, 40)
    z = planted.layer.weight @ planted.inputs.T + planted.layer.bias[:, None]
    zeros = planted.zeros.clone()
    hidden = z[:, 0].argmax()  # surely active
    zeros[hidden, 0] = True
    _, active = separate(features(planted.factors(), planted.layer), zeros)
    assert active[hidden, 0]
