"""The published recipe alone."""

import torch

from gibench.attacks.spearpp import SpearPP


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
