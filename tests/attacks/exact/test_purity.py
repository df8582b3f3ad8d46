"""True directions against mixtures of near-duplicates."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.layers import InputLayer
from gibench.attacks.exact.neurons import distinct_neurons
from gibench.attacks.exact.purity import examine
from gibench.attacks.exact.refine import Directions, smallest, zero_rows

DIFFERING = [4, 5, 14, 38]


def mixture(factors, truth, weights):
    vector = truth.vectors[:, : len(weights)] @ torch.tensor(weights, dtype=torch.float64)
    vectors = (vector / vector.norm())[:, None]
    return Directions(vectors, zero_rows(factors, vectors))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(2, 12), st.integers(0, 1000))
def test_true_directions_of_unrelated_images_are_pure(plant, batch_size, seed):
    planted = plant(batch_size, 12 * batch_size + 40, 60, seed)
    factors = planted.factors()
    purity = examine(factors, planted.truth(factors))
    assert purity.pure.all()
    assert (purity.nullity == 1).all()


@pytest.mark.parametrize("sigma", [1e-6, 1e-4])
def test_true_directions_stay_pure_under_noise(plant, sigma):
    planted = plant(20, 200, 100, sigma=sigma)
    factors = planted.factors()
    assert examine(factors, planted.truth(factors)).pure.all()


@pytest.mark.parametrize("differing", DIFFERING)
@pytest.mark.parametrize("weights", [(0.8, -0.6), (0.6, 0.8), (1.0, 1e-2), (1.0, -0.999)])
def test_a_mixture_of_two_near_duplicates_is_not_pure(plant_near_duplicates, differing, weights):
    planted = plant_near_duplicates(differing)
    factors = planted.factors()
    mixed = mixture(factors, planted.truth(factors), weights)
    purity = examine(factors, mixed)
    assert not purity.pure.any()
    assert purity.nullity.tolist() == [2]


@pytest.mark.parametrize("differing", DIFFERING)
@pytest.mark.parametrize("seed", range(3))
def test_a_mixture_that_is_zero_at_one_neuron_of_both_is_not_pure(plant_near_duplicates, differing, seed):
    planted = plant_near_duplicates(differing, seed=seed)
    factors = planted.factors()
    truth = planted.truth(factors)
    both = (~planted.zeros[:, :2]).all(dim=1).nonzero()[0]
    first, second = (factors.basis[both] @ truth.vectors[:, :2])[0].tolist()
    mixed = mixture(factors, truth, (second, -first))
    assert mixed.zeros[both].item()
    assert not examine(factors, mixed).pure.any()


def with_copies(planted, neuron, copies):
    """The gradient with that neuron several times over, to which the next layer listens alike."""
    more = torch.cat([torch.arange(len(planted.bias_gradient)), neuron.expand(copies)])
    layer = InputLayer("0", planted.layer.weight[more], planted.layer.bias[more])
    parts = {name: getattr(planted, name)[more] for name in ("columns", "zeros", "weight_gradient", "bias_gradient")}
    return replace(planted, layer=layer, **parts)


@pytest.mark.parametrize("copies", [2, 5])
@pytest.mark.parametrize("differing", DIFFERING)
@pytest.mark.parametrize("seed", range(3))
def test_copies_of_that_neuron_are_one(plant_near_duplicates, differing, seed, copies):
    planted = plant_near_duplicates(differing, seed=seed)
    both = (~planted.zeros[:, :2]).all(dim=1).nonzero()[0]
    planted = with_copies(planted, both, copies)
    factors = replace(planted.factors(), neurons=distinct_neurons(planted.layer.weight, planted.layer.bias))
    truth = planted.truth(factors)
    first, second = (factors.basis[both] @ truth.vectors[:, :2])[0].tolist()
    mixed = mixture(factors, truth, (second, -first))
    assert mixed.zeros[both].item()
    assert mixed.zeros[-copies:].all()
    assert not examine(factors, mixed).pure.any()
    assert examine(factors, truth).pure[2:].all()


@pytest.mark.parametrize("differing", DIFFERING)
@pytest.mark.parametrize("seed", range(3))
def test_true_directions_of_near_duplicates_are_pure_once_three_neurons_tell_them_apart(
    plant_near_duplicates, differing, seed
):
    planted = plant_near_duplicates(differing, seed=seed)
    factors = planted.factors()
    own = torch.stack([planted.zeros[:, 0] & ~planted.zeros[:, 1], planted.zeros[:, 1] & ~planted.zeros[:, 0]])
    pure = examine(factors, planted.truth(factors)).pure
    assert (pure[:2] | (own.sum(dim=1) < 3)).all()
    assert pure[2:].all()


def test_the_spread_of_directions_covers_how_far_noise_moved_them(plant):
    exceeded = []
    for seed in range(10):
        planted = plant(10, 200, 60, seed=3)
        noise = 1e-5 * torch.randn(200, 60, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        noisy = type(planted)(**vars(planted) | {"weight_gradient": planted.weight_gradient + noise})
        factors = noisy.factors()
        truth = noisy.truth(factors)
        vectors = smallest(factors, planted.zeros, truth.vectors)[0][:, :, 0].T
        vectors = vectors * (vectors * truth.vectors).sum(dim=0).sign()
        exceeded.append(
            (vectors - truth.vectors).norm(dim=0) / examine(factors, Directions(vectors, planted.zeros)).spread
        )
    ratio = torch.stack(exceeded).square().mean().sqrt()
    assert 0.5 < ratio < 1.5
