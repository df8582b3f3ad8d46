"""The search by matrix products: planted images, their directions, closed forms, and a deadline."""

import itertools

import pytest
import torch

from gibench.attacks.layer_pair.directions import directions_by_products
from gibench.attacks.layer_pair.rounds import find_images
from gibench.attacks.layer_pair.search import candidates, descend, merged, minimize
from tests.attacks.layer_pair.test_layer_pair import equations


def never():
    return False


NOTHING = slice(0, 0)


def ends_of(following, found, count):
    """What random starts end at, judged, with the directions of found images `[B, K]` taken out."""
    known = directions_by_products(following, found)
    space = following.space(known.first)
    starts = following.random(count, space, torch.Generator().manual_seed(3))
    return following.judge(candidates(following, following.without(known.second), space, starts, never))


@pytest.mark.parametrize("neurons", [60, 100, 400])  # of 400 a part of the equations is descended first
def test_random_starts_end_at_the_images(plant, neurons):
    planted = plant(8, neurons)
    following, points = equations(planted)
    ends = ends_of(following, points[:, NOTHING], 400)
    images = ends.images[ends.solved]
    errors = (images[:, None] - planted.inputs).abs().amax(dim=2)
    assert errors.amin(dim=1).max() < 1e-6
    assert errors.amin(dim=0).max() < 1e-6


@pytest.mark.parametrize("relu", [False, True])
def test_what_is_searched_leaves_out_what_is_found(plant, relu):
    planted = plant(8, 100)
    following, points = equations(planted, relu=relu)
    ends = ends_of(following, points[:, :5], 60)
    errors = (ends.images[ends.solved][:, None] - planted.inputs).abs().amax(dim=2)
    assert sorted(set(errors.argmin(dim=1).tolist())) == [5, 6, 7]


def test_with_what_is_found_out_of_both_gradients_every_start_ends_at_an_image(plant):
    generator = torch.Generator().manual_seed(5)
    spectrum = torch.arange(1, 61).double() ** -1.5  # as of photographs: few directions hold most of the energy
    inputs = torch.randn(40, 60, generator=generator, dtype=torch.float64) * spectrum
    following, points = equations(plant(neurons=250, size=60, inputs=inputs / inputs.std()), outputs=120, relu=True)
    found = directions_by_products(following, points[:, :20])
    space = following.space(found.first)
    starts = space.T @ following.random(100, space, torch.Generator().manual_seed(3))

    def astray(equations):
        return int((descend(equations.within(space), starts, 300, 1.0, never)[1] > 1e-6).sum())

    assert astray(following.without(found.second)) == 0
    assert astray(following.equations) > 5


@pytest.mark.parametrize("relu", [False, True])
def test_directions_have_their_zeros_and_are_across_all_other_images(plant, relu):
    planted = plant(8, 100)
    following, points = equations(planted, relu=relu)
    factors, found = following.gradient.factors, directions_by_products(following, points)
    columns = factors.basis @ found.first
    assert columns.masked_select(planted.zeros).abs().max() < 1e-6 * columns.abs().max()
    torch.testing.assert_close((found.first * planted.truth(factors).vectors).sum(0).abs(), torch.ones(8).double())
    assert found.second.shape[1] == (8 if relu else 0)
    if relu:
        inside = following.without(found.second[:, 1:]).activations
        activations = torch.relu(following.equations.features @ points[:, 0])
        torch.testing.assert_close(inside @ (inside.T @ activations), activations)


def test_conjugate_gradients_find_the_least_point_across_the_start():
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(12, 12, generator=generator, dtype=torch.float64)
    matrix = half @ half.T
    start = torch.nn.functional.normalize(torch.randn(12, 5, generator=generator, dtype=torch.float64), dim=0)
    found = minimize(lambda vectors: matrix @ vectors, start, 100, 1e-12)
    least = torch.linalg.solve(matrix, start)  # x^T N x with x . start = 1 is least along N^-1 start
    torch.testing.assert_close(found, least / (least * start).sum(dim=0))


def test_points_that_have_met_are_one():
    points = torch.tensor([[1.0, 0.0, 1.0, -1.0], [0.0, 1.0, 1e-5, 0.0]])
    torch.testing.assert_close(merged(points, 1e-6), points[:, [0, 1, 3]])


@pytest.mark.parametrize("asked", [0, 1, 5, 70, 100])
def test_a_deadline_ends_every_loop_and_what_was_found_stays(plant, context, asked):
    planted = plant(8, 100)
    following, points = equations(planted)
    calls = itertools.count()
    lent = context()
    object.__setattr__(lent, "expired", lambda: next(calls) >= asked)
    found = find_images(following, points[:, :3], 10, 2, lent)
    assert next(calls) <= asked + 8  # one for each loop that is left
    errors = (found.images[found.solved][:, None] - planted.inputs).abs().amax(dim=2)
    assert {0, 1, 2} <= set(errors.argmin(dim=1).tolist())
    assert errors.amin(dim=1).max() < 1e-6


@pytest.mark.parametrize("differing", [6, 12])
def test_near_duplicates_are_found_too(plant_near_duplicates, context, differing):
    planted = plant_near_duplicates(differing, 8, 100, 60)
    following, _ = equations(planted)
    found = find_images(following, following.triangle[:, :0], 10, 2, context())
    assert int(found.solved.sum()) == 8
    errors = (found.images[:, None] - planted.inputs).abs().amax(dim=2)
    assert errors.amin(dim=0).max() < 1e-5
