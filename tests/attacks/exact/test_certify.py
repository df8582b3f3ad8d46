"""No false certificate: on real batches, and on batches that are made to invite one."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.assemble import assemble
from gibench.attacks.exact.certify import certify, matched
from gibench.attacks.exact.linear_layer import EXCESS
from gibench.attacks.exact.low_rank import Factors
from gibench.attacks.exact.purity import examine
from gibench.attacks.exact.recovery import Clock
from gibench.attacks.exact.refine import Directions, smallest, zero_rows
from gibench.attacks.spearpp import SpearPP
from gibench.attacks.spearpp.rounds import Settings, SparseRecovery

PIXELS = torch.tensor([0.25], dtype=torch.float64)  # in [0, 1], for a unit of the model's input


def claims(planted, factors, directions):
    """Which images are certified, and which of them are exact."""
    batch = assemble(planted.gradient(factors), directions)
    certified = certify(factors, batch, examine(factors, directions).pure, PIXELS)
    errors = (batch.inputs[:, None] - planted.inputs[None]).abs().amax(dim=2)
    return certified, (errors * PIXELS < 1 / 510).any(dim=1)


def null_vectors(factors, zeros):
    start = torch.randn(factors.rank, zeros.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Directions(smallest(factors, zeros, start)[0][:, :, 0].T, zeros)


def with_mixtures(factors, truth, *mixtures):
    """The true directions, of which some are replaced by combinations of true ones."""
    vectors = truth.vectors.clone()
    for place, weights in mixtures:
        mixed = truth.vectors[:, list(weights)] @ torch.tensor(list(weights.values()), dtype=torch.float64)
        vectors[:, place] = mixed / mixed.norm()
    return Directions(vectors, zero_rows(factors, vectors))


@pytest.mark.parametrize("sigma", [0.0, 1e-6, 1e-4])
def test_the_true_directions_are_certified_and_exact(plant, sigma):
    planted = plant(20, 200, 300, sigma=sigma)
    factors = planted.factors()
    certified, exact = claims(planted, factors, null_vectors(factors, planted.zeros))
    assert exact.all()
    assert certified.double().mean() >= 0.9


def test_images_too_blurred_by_noise_are_not_certified(plant):
    planted = plant(20, 200, 300, sigma=0.1)
    factors = planted.factors()
    certified, exact = claims(planted, factors, null_vectors(factors, planted.zeros))
    assert not exact.any()
    assert not certified.any()


weights = st.floats(0.02, 1.0) | st.floats(-1.0, -0.02)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 1000), st.dictionaries(st.integers(0, 19), weights, min_size=2, max_size=4))
def test_a_mixture_of_unrelated_images_in_place_of_one_is_not_certified(plant, seed, mixed):
    planted = plant(20, 200, 300, seed)
    factors = planted.factors()
    place = next(iter(mixed))
    certified, exact = claims(planted, factors, with_mixtures(factors, planted.truth(factors), (place, mixed)))
    assert not (certified & ~exact).any()
    assert not certified[list(mixed)].any()


@pytest.mark.parametrize("sigma", [0.0, 1e-6])
@pytest.mark.parametrize("differing", [4, 5, 14, 38])
@pytest.mark.parametrize(
    "mixtures",
    [
        [(0, {0: 0.8, 1: -0.6})],
        [(1, {0: 1.0, 1: 0.02})],
        [(0, {0: 0.8, 1: -0.6}), (1, {0: 0.6, 1: 0.8})],
        [(0, {0: 0.6, 1: -0.6, 2: 0.5})],
        [(0, {1: 1.0, 2: 0.3}), (2, {0: 1.0, 2: 0.3})],
    ],
)
def test_a_mixture_of_near_duplicates_in_place_of_one_gives_no_false_certificate(
    plant, plant_near_duplicates, differing, sigma, mixtures
):
    for seed in range(3):
        exact_one = plant_near_duplicates(differing, seed=seed)
        planted = plant(neurons=200, size=300, seed=seed, inputs=exact_one.inputs, sigma=sigma)
        factors = planted.factors()
        truth = null_vectors(factors, planted.zeros)
        certified, exact = claims(planted, factors, with_mixtures(factors, truth, *mixtures))
        assert not (certified & ~exact).any()


def test_an_unrelated_direction_in_place_of_one_gives_no_certificate(plant):
    planted = plant(20, 200, 300)
    factors = planted.factors()
    truth = planted.truth(factors)
    for seed in range(5):
        vectors = truth.vectors.clone()
        other = torch.randn(20, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        vectors[:, 7] = other / other.norm()
        certified, exact = claims(planted, factors, Directions(vectors, zero_rows(factors, vectors)))
        assert not (certified & ~exact).any()


def test_zeros_that_are_none_are_not_certified(plant):
    planted = plant(20, 200, 300)
    factors = planted.factors()
    truth = planted.truth(factors)
    zeros = truth.zeros.clone()
    zeros[(~zeros[:, 3]).nonzero()[:2, 0], 3] = True
    certified, _ = claims(planted, factors, Directions(truth.vectors, zeros))
    assert not certified[3]


@pytest.mark.parametrize(("share", "enough"), [(0.85, True), (0.75, False), (0.4, False)])
def test_lambda_means_nothing_where_few_neurons_vote(plant, share, enough):
    planted = plant(20, 200, 300)
    factors = planted.factors()
    batch = assemble(planted.gradient(factors), planted.truth(factors))
    voting = torch.arange(200)[:, None] < 200 * share
    batch = replace(batch, votes=batch.votes & voting, agree=batch.agree & voting)
    assert (batch.matching == 1).all()
    assert (matched(factors, batch) == enough).all()


@pytest.mark.parametrize(("more", "enough"), [(EXCESS, True), (EXCESS - 1, False)])
def test_nor_where_they_are_few_beside_the_batch(plant, more, enough):
    planted = plant(50, 60, 300)
    factors = planted.factors()
    batch = assemble(planted.gradient(factors), planted.truth(factors))
    voting = (torch.arange(60) < 50 + more)[:, None].expand(60, 50)
    batch = replace(batch, votes=voting, agree=voting)
    assert (matched(factors, batch) == enough).all()


def searched(planted, factors, context):
    """What a search with these factors claims: certified, exact, how many directions are missing."""
    settings = Settings(iterations=300, step=0.6, rounds=4)
    clock = Clock(torch.device("cpu"))
    found = SparseRecovery(planted.gradient(factors).in_row_space(), context(), clock, settings=settings).run()
    if found.missing:
        return torch.zeros(factors.rank, dtype=torch.bool), found.missing
    batch = assemble(planted.gradient(factors), found.batch.directions)
    certified = certify(factors, batch, found.pure, PIXELS)
    errors = (batch.inputs[:, None] - planted.inputs[None]).abs().amax(dim=2)
    return certified & ~(errors * PIXELS < 1 / 510).any(dim=1), 0


@pytest.mark.parametrize("seed", range(3))
def test_the_right_rank_is_found_without_false_certificates(plant, context, seed):
    planted = plant(20, 200, 300, seed)
    false, missing = searched(planted, planted.factors(), context)
    assert missing == 0
    assert not false.any()


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("seed", range(2))
def test_a_rank_read_too_low_gives_no_false_certificate(plant, context, seed, lost):
    planted = plant(20, 200, 300, seed)
    right = planted.factors()
    kept = slice(0, 20 - lost)
    few = replace(
        right,
        basis=right.basis[:, kept],
        inputs=right.inputs[kept],
        ones=right.ones[kept],
        singular_values=right.singular_values[kept],
    )
    false, _ = searched(planted, few, context)
    assert not false.any()


@pytest.mark.parametrize("sigma", [1e-8, 1e-6])
def test_a_rank_read_too_high_gives_no_false_certificate(plant, context, sigma):
    planted = plant(20, 200, 300, sigma=sigma)
    left, values, right = torch.linalg.svd(planted.weight_gradient, full_matrices=False)
    basis = 200**0.5 * left[:, :21]
    many = Factors(
        basis,
        values[:21, None] * right[:21] / 200**0.5,
        basis.T @ planted.bias_gradient / 200,
        values[:21],
        planted.factors().sigma,
        gap=1.0,
        bias_residual=0.0,
        neurons=torch.arange(200),
    )
    false, _ = searched(planted, many, context)
    assert not false.any()


def tally(see, context, seeds, **batch):
    """How many images there are, are exact, are exact and certified, and are falsely certified."""
    counts = torch.zeros(4, dtype=torch.int64)
    for seed in seeds:
        seen = see(20, seed, **batch)
        result = SpearPP()(seen.observation, context(seed)).reconstruction
        exact = seen.exact(result.images)
        right, false = exact & result.certified, result.certified & ~exact
        counts += torch.tensor([20, int(exact.sum()), int(right.sum()), int(false.sum())])
    return counts.tolist()


def test_real_batches_are_exact_and_certified_without_noise(see, context):
    images, exact, certified, false = tally(see, context, range(6))
    assert false == 0
    assert exact >= 0.98 * images
    assert certified >= 0.95 * exact


@pytest.mark.parametrize("noise", [2e-7, 2e-6])
def test_certificates_of_real_batches_hold_under_noise(see, context, noise):
    _, exact, certified, false = tally(see, context, range(2), noise=noise)
    assert false == 0
    assert exact > 0
    assert certified >= 0.5 * exact


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 2e-6])
def test_certificates_of_real_batches_of_one_label_hold(see, context, noise):
    assert tally(see, context, range(4), labels="same", noise=noise)[3] == 0
