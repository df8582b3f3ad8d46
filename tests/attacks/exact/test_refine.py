"""Approximate directions become exact ones."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.refine import (
    Directions,
    distinct,
    duplicates,
    near_zero,
    refine,
    smallest,
    tolerance,
    zero_rows,
)


def perturbed(vectors, size, seed=0):
    noise = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(seed), dtype=vectors.dtype)
    moved = vectors + size * noise / noise.norm(dim=0)
    return moved / moved.norm(dim=0)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(12, 20), st.integers(0, 1000))
def test_perturbed_true_directions_become_exact_and_their_zeros_too(plant, distance, batch_size, seed):
    planted = plant(batch_size, 12 * batch_size + 40, 60, seed)
    assume(not planted.zeros.all(dim=1).any())  # a neuron that never fires is zero in every direction
    factors = planted.factors()
    truth = planted.truth(factors)
    found = refine(factors, perturbed(truth.vectors, 1e-4, seed))
    missed = distance(found.vectors, truth.vectors)
    nearest = (found.vectors.T @ truth.vectors).abs().argmax(dim=1)
    exact = (missed < 1e-10) & (found.zeros == truth.zeros[:, nearest]).all(dim=0)
    assert exact.sum() >= batch_size - 1  # one may be held up by an entry that happens to be as small as the error


def test_a_direction_within_search_accuracy_is_found_from_float32(plant, distance):
    planted = plant(20, 200, 100)
    factors = planted.factors()
    found = refine(factors, planted.truth(factors).vectors.float())
    assert distance(planted.truth(factors).vectors, found.vectors).max() < 1e-10


def test_under_noise_refined_directions_miss_by_the_noise_and_no_more(plant, distance):
    planted = plant(10, 200, 60, sigma=1e-5)
    factors = planted.factors()
    truth = planted.truth(factors)
    found = refine(factors, perturbed(truth.vectors, 1e-3))
    missed = distance(truth.vectors, found.vectors)
    assert missed.min() > 1e-9
    assert missed.max() < 10 * factors.noise(truth.vectors).max()


def test_random_directions_do_not_become_zero_rows_by_themselves(plant, distance):
    planted = plant(10, 60, 40)
    factors = planted.factors()
    starts = perturbed(torch.zeros(10, 30, dtype=torch.float64), 1.0)
    found = refine(factors, starts)
    assert (found.zeros == zero_rows(factors, found.vectors)).all()
    assert (found.zeros.sum(dim=0) >= 9).all()


def test_the_smallest_singular_vectors_span_the_directions_that_are_zero_on_the_rows(plant):
    planted = plant(10, 150, 40)
    factors = planted.factors()
    truth = planted.truth(factors).vectors
    pairs = [(0, 1), (2, 3), (4, 9)]
    rows = torch.stack([planted.zeros[:, pair].all(dim=1) for pair in pairs], dim=1)
    spaces, values = smallest(factors, rows, perturbed(torch.zeros(10, 3, dtype=torch.float64), 1.0), 3)
    assert spaces.shape == (3, 10, 3)
    assert values[:, :2].max() < 1e-7
    assert values[:, 2].min() > 1e-2
    for space, pair in zip(spaces, pairs, strict=True):
        torch.testing.assert_close((space[:, :2].T @ truth[:, pair]).norm(dim=0), torch.ones(2).double())


def test_the_null_vector_of_a_zero_set_is_its_true_direction(plant, distance):
    planted = plant(10, 100, 40)
    factors = planted.factors()
    start = perturbed(torch.zeros(10, 10, dtype=torch.float64), 1.0)
    vectors, values = smallest(factors, planted.zeros, start)
    assert distance(vectors[:, :, 0].T, planted.truth(factors).vectors).max() < 1e-9
    assert values.max() < 1e-7


@pytest.mark.parametrize("sigma", [0.0, 1e-6, 1e-4])
def test_true_zeros_are_within_the_tolerance_whatever_the_noise(plant, sigma):
    planted = plant(10, 400, 60, sigma=sigma)
    factors = planted.factors()
    vectors, _ = smallest(factors, planted.zeros, planted.truth(factors).vectors)
    vectors = vectors[:, :, 0].T
    zeros = zero_rows(factors, vectors)
    assert zeros[planted.zeros].double().mean() > 0.998  # four standard deviations, for a direction that is noisy too
    columns = factors.basis @ vectors
    assert torch.equal(zeros, columns.abs() <= tolerance(factors, vectors, columns))


def test_entries_near_zero_lie_between_one_and_two_tolerances(plant):
    factors = plant(10, 400, 60, sigma=1e-3).factors()
    vectors = perturbed(torch.zeros(10, 5, dtype=torch.float64), 1.0)
    columns = (factors.basis @ vectors).abs()
    limit = 4 * factors.noise(vectors) + 1e-6 * columns.amax(dim=0)
    expected = [int(((c > t) & (c <= 2 * t)).sum()) for c, t in zip(columns.T, limit, strict=True)]
    assert near_zero(factors, vectors).tolist() == expected
    assert sum(expected) > 0


def test_repetitions_up_to_sign_are_dropped_and_most_zeros_come_first(plant):
    planted = plant(10, 100, 40)
    truth = planted.truth(planted.factors())
    again = Directions(-truth.vectors[:, 3:6], truth.zeros[:, 3:6])
    kept = distinct(truth.join(again))
    assert len(kept) == 10
    counts = kept.zeros.sum(dim=0)
    assert (counts.diff() <= 0).all()


def test_the_same_direction_with_other_zeros_is_another(plant):
    planted = plant(10, 100, 40)
    truth = planted.truth(planted.factors())
    zeros = truth.zeros.clone()
    zeros[:5, 0] ^= True
    zeros[:2, 1] ^= True
    same = duplicates(truth, Directions(-truth.vectors, zeros))
    expected = torch.eye(10, dtype=torch.bool)
    expected[0, 0] = False
    assert torch.equal(same, expected)


def test_selecting_and_joining_keep_vectors_and_zeros_together(plant):
    planted = plant(10, 100, 40)
    truth = planted.truth(planted.factors())
    both = truth.select(torch.tensor([4])).join(truth.select(torch.tensor([7, 1])))
    assert torch.equal(both.vectors, truth.vectors[:, [4, 7, 1]])
    assert torch.equal(both.zeros, truth.zeros[:, [4, 7, 1]])
