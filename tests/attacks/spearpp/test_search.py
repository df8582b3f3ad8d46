"""The search on the sphere."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gibench.attacks.exact.refine import refine
from gibench.attacks.exact.sphere import random_starts
from gibench.attacks.spearpp.search import merge, minimize, row_starts


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def minimize_l1(basis, starts, iterations=100, step=1.0):
    return minimize(basis, starts, "l1", "radam", iterations, step)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(2, 20), st.integers(1, 30), st.data())
def test_starts_are_unit_vectors_orthogonal_to_what_is_avoided(dimension, count, data):
    avoided = data.draw(st.integers(0, dimension - 1))
    avoid = torch.randn(dimension, avoided, generator=generator(1), dtype=torch.float64)
    starts = random_starts(dimension, count, avoid, generator())
    assert starts.shape == (dimension, count)
    assert starts.dtype == torch.float32
    torch.testing.assert_close(starts.norm(dim=0), torch.ones(count))
    assert not avoided or (torch.linalg.qr(avoid).Q.T @ starts.double()).abs().max() < 1e-3


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 20), st.integers(1, 30), st.data())
def test_starts_of_rows_are_unit_vectors_orthogonal_to_what_is_avoided(dimension, count, data):
    avoided = data.draw(st.integers(0, dimension - 1))
    avoid = torch.randn(dimension, avoided, generator=generator(1), dtype=torch.float64)
    basis = torch.randn(30, dimension, generator=generator(2), dtype=torch.float64)
    dead = data.draw(st.integers(0, 30))
    basis[:dead] = 0
    basis[dead:] *= data.draw(st.sampled_from([1e-4, 1.0, 1e4]))
    starts = row_starts(basis, count, avoid, generator())
    assert starts.shape == (dimension, count)
    assert starts.dtype == torch.float32
    torch.testing.assert_close(starts.norm(dim=0), torch.ones(count))
    assert not avoided or (torch.linalg.qr(avoid).Q.T @ starts.double()).abs().max() < 1e-3


def test_starts_of_rows_are_nearer_to_true_directions_than_random_ones(plant):
    planted = plant(40, 600, 100)
    factors = planted.factors()
    truth = planted.truth(factors).vectors.float()
    rows, random = row_starts(factors.basis, 300, None, generator()), random_starts(40, 300, None, generator())
    nearest_row, nearest_random = ((truth.T @ starts).abs().amax(dim=0).mean() for starts in (rows, random))
    assert nearest_row > 1.15 * nearest_random


def test_starts_of_rows_lead_to_more_true_directions_than_random_ones(plant):
    planted = plant(40, 600, 100)
    factors = planted.factors()
    truth = planted.truth(factors).vectors.float()

    def found(starts):
        return int(((truth.T @ minimize_l1(factors.basis, starts)).abs() > 0.99).any(dim=1).sum())

    rows = sum(found(row_starts(factors.basis, 80, None, generator(seed))) for seed in range(5))
    assert rows > sum(found(random_starts(40, 80, None, generator(seed))) for seed in range(5))


def test_of_those_that_have_met_the_sparsest_is_kept(plant):
    planted = plant(8, 200, 60)
    factors = planted.factors()
    truth = planted.truth(factors).vectors.float()
    near = truth + 1e-3 * torch.randn(8, 8, generator=generator(), dtype=torch.float32)
    kept = merge(factors.basis, torch.cat([near / near.norm(dim=0), truth, -truth], dim=1))
    assert kept.shape == truth.shape
    torch.testing.assert_close((kept.T @ truth).abs().amax(dim=0), torch.ones(8), rtol=0, atol=1e-6)


def test_end_points_apart_are_all_kept(plant):
    factors = plant(8, 200, 60).factors()
    ends = random_starts(8, 20, None, generator())
    assert merge(factors.basis, ends).shape == (8, 20)


def test_starts_fill_the_sphere_uniformly():
    starts = random_starts(5, 40_000, None, generator())
    torch.testing.assert_close(starts @ starts.T / 40_000, torch.eye(5) / 5, rtol=0, atol=0.01)


def test_the_search_ends_on_the_sphere_with_a_lower_objective_from_every_start(plant):
    basis = plant(20, 200, 100).factors().basis
    starts = random_starts(20, 60, None, generator())
    ends = minimize_l1(basis, starts)
    torch.testing.assert_close(ends.norm(dim=0), torch.ones(60))
    assert ((basis.float() @ ends).abs().mean(dim=0) < (basis.float() @ starts).abs().mean(dim=0)).all()


def test_the_search_ends_on_a_local_minimum(plant):
    basis = plant(20, 200, 100).factors().basis
    ends = minimize_l1(basis, random_starts(20, 10, None, generator()), 300).double()
    aside = torch.randn(20, 500, generator=generator(2), dtype=torch.float64)
    for end in ends.T:
        around = end[:, None] + 0.05 * aside / aside.norm(dim=0)
        around = around / around.norm(dim=0)
        assert (basis @ around).abs().mean(dim=0).min() > (basis @ end).abs().mean()


def test_more_iterations_end_lower(plant):
    basis = plant(20, 200, 100).factors().basis
    starts = random_starts(20, 40, None, generator())
    few, many = ((basis.float() @ minimize_l1(basis, starts, steps)).abs().mean(dim=0).mean() for steps in (20, 300))
    assert many < few


def test_the_search_leaves_its_starts_as_they_are(plant):
    starts = random_starts(8, 10, None, generator())
    before = starts.clone()
    minimize_l1(plant().factors().basis, starts, 5)
    assert torch.equal(starts, before)


def test_the_search_depends_on_the_seed_alone(plant):
    basis = plant().factors().basis
    one, same, other = (minimize_l1(basis, random_starts(8, 10, None, generator(s)), 50) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("seed", range(3))
def test_end_points_refine_to_true_directions_of_an_easy_dictionary(plant, distance, seed):
    planted = plant(12, 300, 60, seed)
    factors = planted.factors()
    found = refine(factors, minimize_l1(factors.basis, random_starts(12, 100, None, generator()), 500, 0.6))
    truth = planted.truth(factors).vectors
    assert distance(found.vectors, truth).max() < 1e-10
    assert (distance(truth, found.vectors) < 1e-10).sum() >= 11
