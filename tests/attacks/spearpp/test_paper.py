"""The published recipe alone."""

import torch

from gibench.attacks.spearpp import SpearPP
from gibench.attacks.spearpp.paper import sampled_rounding


def test_sampled_rounding_finds_the_true_directions_near_by(plant, distance):
    planted = plant(12, 200, 60)
    factors = planted.factors()
    truth = planted.truth(factors).vectors
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounded = sampled_rounding(factors, truth + 1e-4 * noise, torch.Generator().manual_seed(1))
    assert len(rounded) == 12
    assert (distance(rounded.vectors, truth) < 1e-6).sum() >= 10  # it need not find them all: that is what it lacks


def test_rounded_directions_are_unit_vectors_that_are_zero_on_as_many_rows_as_determine_them(plant):
    factors = plant(8, 200, 60).factors()
    ends = torch.randn(8, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounded = sampled_rounding(factors, ends, torch.Generator().manual_seed(1))
    torch.testing.assert_close(rounded.vectors.norm(dim=0), torch.ones(20, dtype=torch.float64))
    assert (rounded.zeros.sum(dim=0) >= 7).all()


def test_the_recipe_recovers_an_easy_batch_and_certifies_nothing(see, context):
    seen = see(8)
    result = SpearPP(preset="paper")(seen.observation, context()).reconstruction
    assert seen.exact(result.images).sum() >= 6
    assert not result.certified.any()


def test_the_recipe_gives_the_same_bits_for_the_same_seed(see, context):
    one, other = (SpearPP(preset="paper", rounds=2)(see(6).observation, context()).reconstruction for _ in range(2))
    assert torch.equal(one.images, other.images)


def test_the_recipe_survives_a_batch_that_it_cannot_recover(see, context):
    seen = see(20, noise=1e-4)
    run = SpearPP(preset="paper", rounds=1)(seen.observation, context())
    assert run.status == "ok"
    assert len(run.reconstruction.images) == run.reconstruction.diagnostics["rank"]
    assert not run.reconstruction.certified.any()
