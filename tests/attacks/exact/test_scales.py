"""The scale of each image from every layer's gradient."""

import pytest
import torch
from torch import nn

from gibench import seeds
from gibench.attacks.exact.scales import refine_scales
from gibench.models.mlp import MLP


def wrong_factors(count, most, seed=0):
    return 1 + most * (2 * torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1)


def double(photos, seed=0):
    with seeds.isolated(seed, "model"):
        return MLP(width=200, depth=5).build(photos.image_shape, photos.num_classes).double()


@pytest.mark.parametrize("most", [1e-3, 0.05, 0.2])
def test_wrong_scales_are_put_right_without_noise(see, photos, most):
    seen = see(8, model=double(photos))
    inputs = seen.observation.normalize(seen.truth.images).flatten(1).double()
    factors = wrong_factors(8, most)
    by, _ = refine_scales(seen.observation, inputs * factors[:, None], 0.0)
    torch.testing.assert_close(by * factors, torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-6)


def test_right_scales_stay(see, photos):
    seen = see(8, model=double(photos))
    inputs = seen.observation.normalize(seen.truth.images).flatten(1).double()
    by, error = refine_scales(seen.observation, inputs, 0.0)
    torch.testing.assert_close(by, torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-7)
    assert (error < 1e-8).all()


@pytest.mark.parametrize("sigma", [1e-7, 1e-6])
def test_the_stated_deviation_is_the_actual_one_under_noise(see, photos, sigma):
    scores = []
    for seed in range(5):
        seen = see(8, seed, noise=8 * sigma, model=double(photos, seed))  # the noise of an entry: multiplier / B
        inputs = seen.observation.normalize(seen.truth.images).flatten(1).double()
        factors = wrong_factors(8, 0.01, seed)
        by, error = refine_scales(seen.observation, inputs * factors[:, None], sigma)
        scores.append((by * factors - 1) / error)
    scores = torch.cat(scores)
    assert 0.7 < scores.square().mean().sqrt() < 1.3
    assert scores.abs().max() < 4


def test_clipping_which_rescales_each_image_s_gradient_does_not_matter(see, photos):
    seen = see(8, noise=1e-9, model=double(photos))
    inputs = seen.observation.normalize(seen.truth.images).flatten(1).double()
    by, _ = refine_scales(seen.observation, inputs * wrong_factors(8, 0.1)[:, None], 1e-9 / 8)
    torch.testing.assert_close(by * wrong_factors(8, 0.1), torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(200), nn.Dropout(0.5)])
def test_a_model_whose_images_disturb_each_other_is_left_alone(see, photos, layer):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 200), nn.ReLU(), layer, nn.Linear(200, 10))
    seen = see(8, model=model)
    assert refine_scales(seen.observation, torch.ones(8, 3072, dtype=torch.float64), 0.0) is None
