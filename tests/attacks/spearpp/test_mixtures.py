"""Mixtures of near-duplicates taken apart."""

import pytest
import torch

from gibench.attacks.exact.purity import examine
from gibench.attacks.exact.refine import Directions, zero_rows
from gibench.attacks.spearpp.mixtures import close, null_space, take_apart

DIFFERING = [4, 5, 14, 38]


def mixture(factors, truth, weights):
    vector = truth.vectors[:, : len(weights)] @ torch.tensor(weights, dtype=torch.float64)
    vectors = (vector / vector.norm())[:, None]
    return Directions(vectors, zero_rows(factors, vectors))


def none(factors):
    return Directions(factors.basis.new_zeros(factors.rank, 0), torch.zeros(len(factors.basis), 0, dtype=torch.bool))


def apart(factors, mixed, known=None):
    return take_apart(factors, mixed, examine(factors, mixed), none(factors) if known is None else known)


@pytest.mark.parametrize("sigma", [0.0, 1e-7])
@pytest.mark.parametrize("differing", DIFFERING)
@pytest.mark.parametrize("seed", range(3))
def test_both_near_duplicates_are_found_inside_their_mixture(
    plant, plant_near_duplicates, distance, differing, seed, sigma
):
    exact = plant_near_duplicates(differing, seed=seed)
    planted = plant(neurons=200, size=300, seed=seed, inputs=exact.inputs, sigma=sigma)
    factors = planted.factors()
    truth = planted.truth(factors)
    parts = apart(factors, mixture(factors, truth, (0.8, -0.6)))
    assert distance(truth.vectors[:, :2], parts.vectors).max() < (1e-10 if sigma == 0 else 1e-3)


def test_mixtures_that_span_one_space_are_taken_apart_once(plant_near_duplicates):
    planted = plant_near_duplicates(14)
    factors = planted.factors()
    truth = planted.truth(factors)
    mixed = mixture(factors, truth, (0.8, -0.6)).join(mixture(factors, truth, (0.6, 0.8)))
    assert len(apart(factors, mixed.select(torch.tensor([0])))) == len(apart(factors, mixed))


def test_what_is_pure_inside_a_mixture_of_three_is_one_of_them(plant_near_duplicates, plant, distance):
    near = plant_near_duplicates(38)
    inputs = near.inputs.clone()
    inputs[2] = inputs[0] + 0.3 * (inputs[2] - inputs[0])
    planted = plant(neurons=200, size=300, inputs=inputs)
    factors = planted.factors()
    truth = planted.truth(factors)
    mixed = mixture(factors, truth, (0.6, -0.6, 0.5))
    assert examine(factors, mixed).nullity.tolist() == [3]
    parts = apart(factors, mixed)
    pure = examine(factors, parts).pure
    assert pure.sum() >= 2
    assert distance(parts.vectors[:, pure], truth.vectors[:, :3]).max() < 1e-10


def test_nothing_to_take_apart_gives_nothing(plant):
    factors = plant().factors()
    assert apart(factors, none(factors)) is None


def test_a_mixture_whose_images_are_known_is_left_alone(plant_near_duplicates):
    planted = plant_near_duplicates(38)
    factors = planted.factors()
    truth = planted.truth(factors)
    mixed = mixture(factors, truth, (0.8, -0.6))
    assert apart(factors, mixed, truth.select(torch.tensor([0, 1]))) is None
    assert apart(factors, mixed, truth.select(torch.tensor([0, 2]))) is not None


@pytest.mark.parametrize(("images", "found"), [(3, 3), (5, 1)])
def test_what_is_pure_in_a_cluster_around_one_image_is_true(plant, distance, images, found):
    inputs = plant(20, 400, 300).inputs.clone()
    for near in range(1, images):
        inputs[near] = inputs[0] + 0.3 * (inputs[near] - inputs[0])
    planted = plant(neurons=400, size=300, inputs=inputs)
    factors = planted.factors()
    truth = planted.truth(factors)
    space = null_space(factors, planted.zeros[:, :images].all(dim=1))
    assert space.shape[1] == images
    weights = torch.linspace(0.4, 1.0, images, dtype=torch.float64)
    parts = apart(factors, mixture(factors, truth, weights.tolist()))
    pure = examine(factors, parts).pure
    assert pure.sum() >= found
    assert distance(parts.vectors[:, pure], truth.vectors[:, :images]).max() < 1e-10


@pytest.mark.parametrize("dimensions", [3, 7])
@pytest.mark.parametrize("size", [1e-12, 1e-4, 1e-2])
@pytest.mark.parametrize("seed", range(3))
def test_no_row_that_is_parallel_to_another_is_left_out(dimensions, size, seed):
    generator = torch.Generator().manual_seed(seed)
    unit = torch.nn.functional.normalize(torch.randn(300, dimensions, generator=generator, dtype=torch.float64))
    loose = size * torch.rand(300, generator=generator, dtype=torch.float64)
    moved = loose[:60, None] * torch.nn.functional.normalize(torch.randn(60, dimensions, generator=generator).double())
    unit = torch.nn.functional.normalize(torch.cat([unit, moved - unit[:60]]))  # of either sign
    loose = torch.cat([loose, loose[:60]])
    parallel = (unit @ unit.T).abs() >= 1 - (loose[:, None] + loose).square() / 2 - 1e-14
    kept, _ = close(unit, loose)
    partners = unit[parallel.sum(dim=1) > 1]
    assert len(partners) >= 120
    assert bool((partners[:, None] == kept).all(dim=2).any(dim=1).all())
    if size < 1e-4:
        assert len(kept) < 200  # and most others are


def test_rows_that_are_no_multiples_of_each_other_leave_none():
    kept, loose = close(torch.eye(3, dtype=torch.float64), torch.full((3,), 1e-9, dtype=torch.float64))
    assert len(kept) == len(loose) == 0
    assert len(close(kept, loose)[0]) == 0
    assert len(close(torch.ones(1, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64))[0]) == 0
