"""From directions to images, with the error that noise explains."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.assemble import assemble, rescale
from gibench.attacks.exact.refine import Directions, smallest


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.integers(0, 1000))
def test_true_directions_give_the_images_the_columns_and_lambda_one(plant, batch_size, seed):
    planted = plant(batch_size, 150, 60, seed)
    factors = planted.factors()
    batch = assemble(planted.gradient(factors), planted.truth(factors))
    torch.testing.assert_close(batch.inputs, planted.inputs, rtol=0, atol=1e-7)
    torch.testing.assert_close(batch.columns, planted.columns, rtol=0, atol=1e-7)
    assert batch.matches
    assert (batch.matching == 1).all()


def test_a_mixture_spoils_only_the_images_mixed(plant):
    planted = plant(10, 150, 60)
    factors = planted.factors()
    truth = planted.truth(factors)
    vectors = truth.vectors.clone()
    vectors[:, 0] = 0.8 * vectors[:, 0] + 0.6 * vectors[:, 1]
    zeros = truth.zeros.clone()
    zeros[:, 0] &= zeros[:, 1]
    batch = assemble(planted.gradient(factors), Directions(vectors, zeros))
    wrong = (batch.inputs - planted.inputs).abs().amax(dim=1)
    assert wrong[2:].max() < 1e-7
    assert wrong[:2].max() > 0.1
    assert not batch.matches


def test_rescaling_multiplies_inputs_and_divides_columns(plant):
    planted = plant(6, 100, 40)
    factors = planted.factors()
    batch = assemble(planted.gradient(factors), planted.truth(factors))
    by = torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0, 1.0], dtype=torch.float64)
    scaled = rescale(planted.gradient(factors), batch, by, torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(scaled.inputs, batch.inputs * by[:, None])
    torch.testing.assert_close(scaled.columns @ scaled.inputs, batch.columns @ batch.inputs)
    assert (scaled.matching[[0, 2, 4, 5]] == 1).all()
    assert (scaled.matching[[1, 3]] < 1).all()


@pytest.mark.parametrize("sigma", [1e-6, 1e-4])
def test_the_predicted_error_is_that_of_the_images_under_noise(plant, sigma):
    ratios = []
    for seed in range(6):
        planted = plant(10, 200, 60, seed, sigma)
        factors = planted.factors()
        vectors = smallest(factors, planted.zeros, planted.truth(factors).vectors)[0][:, :, 0].T
        directions = Directions(vectors, planted.zeros)
        batch = assemble(planted.gradient(factors), directions)
        actual = (batch.inputs - planted.inputs).square().mean(dim=1).sqrt()
        ratios.append(actual / batch.error)
    ratio = torch.cat(ratios)
    assert 0.3 < ratio.square().mean().sqrt() < 1.5
    assert ratio.max() < 5
