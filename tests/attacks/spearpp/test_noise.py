"""Zero sets that noise has spoiled."""

import pytest
import torch

from gibench.attacks.exact.assemble import assemble
from gibench.attacks.exact.linear_layer import features
from gibench.attacks.exact.refine import Directions, distinct, smallest, tolerance, zero_rows
from gibench.attacks.spearpp.noise import correct_by_images, drop_hidden

SIGMA = 0.1


def assembler(planted, factors):
    return lambda directions: assemble(planted.gradient(factors), directions)


def best_possible(planted, factors):
    """The null vectors of the true zero sets."""
    vectors = smallest(factors, planted.zeros, planted.truth(factors).vectors)[0][:, :, 0].T
    return Directions(vectors, planted.zeros)


def wrong_zeros(found, truth):
    nearest = (truth.vectors.T @ found.vectors).abs().argmax(dim=1)
    return int((found.zeros[:, nearest] ^ truth.zeros).sum())


@pytest.mark.parametrize("seed", range(3))
def test_hidden_entries_are_left_out_of_the_zero_sets(plant, distance, seed):
    planted = plant(12, 400, 200, seed, SIGMA)
    factors = planted.factors()
    truth = best_possible(planted, factors)
    seen = Directions(truth.vectors, zero_rows(factors, truth.vectors))
    tilted = Directions(smallest(factors, seen.zeros, truth.vectors)[0][:, :, 0].T, seen.zeros)
    hidden = int((seen.zeros & ~truth.zeros).sum())
    assert hidden > 0
    both = drop_hidden(factors, features(factors, planted.layer), tilted)
    assert wrong_zeros(both, truth) < hidden + int((truth.zeros & ~seen.zeros).sum())
    assert distance(truth.vectors, both.vectors).mean() < distance(truth.vectors, tilted.vectors).mean()


def test_without_noise_a_zero_is_a_zero(plant):
    planted = plant(12, 400, 200)
    factors = planted.factors()
    truth = distinct(planted.truth(factors))
    assert drop_hidden(factors, features(factors, planted.layer), truth) is truth


def test_small_entries_follow_the_recovered_images(plant):
    planted = plant(12, 400, 200, sigma=SIGMA)
    factors = planted.factors()
    truth = best_possible(planted, factors)
    columns = factors.basis @ truth.vectors
    small = columns.abs() <= 2 * tolerance(factors, truth.vectors, columns)
    zeros = truth.zeros.clone()
    z = planted.layer.weight @ planted.inputs.T + planted.layer.bias[:, None]
    clear = torch.where(small & (z > 0), z, -torch.inf)[:, 0].argmax()  # an active neuron that the noise hides
    assert small[clear, 0]
    assert z[clear, 0] > 0.1
    zeros[clear, 0] = True
    before = assembler(planted, factors)(Directions(truth.vectors, zeros))
    after, corrected = correct_by_images(factors, before, assembler(planted, factors))
    assert corrected
    assert torch.equal(after.directions.zeros, truth.zeros)
    assert after.matches


def test_a_batch_that_agrees_is_left_alone(plant):
    planted = plant(12, 400, 200)
    factors = planted.factors()
    batch = assembler(planted, factors)(planted.truth(factors))
    assert correct_by_images(factors, batch, assembler(planted, factors)) == (batch, False)


def test_large_entries_stay_whatever_an_image_says(plant):
    planted = plant(12, 400, 200, sigma=1e-5)
    factors = planted.factors()
    zeros = planted.zeros.clone()
    truth = best_possible(planted, factors)
    large = (factors.basis @ truth.vectors).abs()[:, 0].argmax()
    zeros[large, 0] = True
    before = assembler(planted, factors)(Directions(truth.vectors, zeros))
    after, _ = correct_by_images(factors, before, assembler(planted, factors))
    assert after.directions.zeros[large, 0]
