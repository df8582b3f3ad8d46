"""The optimisers on the sphere, against closed forms, geoopt and pymanopt."""

import math

import geoopt
import pymanopt
import pytest
import torch
from pymanopt.manifolds import Sphere as PymanoptSphere
from pymanopt.optimizers import TrustRegions

from gibench.attacks.exact.sphere import radam, random_starts
from gibench.attacks.spearpp.objectives import OBJECTIVES, Objective, Sphere
from gibench.attacks.spearpp.optimizers import OPTIMIZERS, rgd, rtr

QUADRATIC = Objective(lambda z: z * z / 2, lambda z: z, torch.ones_like)
SETTINGS = {"radam": (100, 1.0), "rgd": (200, 0.2), "rtr": (100, 0.4)}
NEAR = {"l1": 1e-3, "l4": 0.2, "huber": 0.01, "logcosh": 0.01}  # how far the minima are from the sparse vectors
PAIRS = [
    (objective, optimizer)
    for objective, each in OBJECTIVES.items()
    for optimizer in OPTIMIZERS
    if each.curvature or optimizer != "rtr"
]


def starts(dimension, count, seed=0):
    return random_starts(dimension, count, None, torch.Generator().manual_seed(seed)).double()


def planted_sphere(plant, objective="logcosh", batch_size=10, neurons=150):
    return Sphere(plant(batch_size, neurons, 60).factors().basis, OBJECTIVES[objective])


@pytest.mark.parametrize(("objective", "optimizer"), PAIRS)
def test_every_pair_finds_the_directions_of_a_planted_dictionary(plant, distance, objective, optimizer):
    planted = plant(6, 1000, 60)
    factors = planted.factors()
    points = random_starts(6, 60, None, torch.Generator().manual_seed(0))
    ends = OPTIMIZERS[optimizer](Sphere(factors.basis.float(), OBJECTIVES[objective]), points, *SETTINGS[optimizer])
    assert distance(planted.truth(factors).vectors, ends.double()).max() < NEAR[objective]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_quadratic_is_least_at_the_last_singular_vector(optimizer):
    basis = torch.randn(40, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    last = torch.linalg.svd(basis).Vh[-1]
    ends = OPTIMIZERS[optimizer](Sphere(basis, QUADRATIC), starts(8, 20), 1500, 0.5)
    torch.testing.assert_close((last @ ends).abs(), torch.ones(20, dtype=torch.float64), rtol=0, atol=1e-8)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_start_sees_another_and_none_is_changed(plant, optimizer):
    sphere, points = planted_sphere(plant), starts(10, 6)
    before = points.clone()
    together = OPTIMIZERS[optimizer](sphere, points, 40, 0.3)
    alone = torch.cat([OPTIMIZERS[optimizer](sphere, point[:, None], 40, 0.3) for point in points.T], dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-9)
    assert torch.equal(points, before)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_single_image_leaves_nothing_to_search(optimizer):
    sphere = Sphere(torch.randn(30, 1, generator=torch.Generator().manual_seed(0)), OBJECTIVES["huber"])
    points = torch.tensor([[1.0, -1.0]])
    assert torch.equal(OPTIMIZERS[optimizer](sphere, points, 5, 0.5), points)


@pytest.mark.parametrize(("objective", "iterations"), [("l1", 1), ("l1", 20), ("logcosh", 60)])
def test_radam_is_that_of_geoopt(plant, objective, iterations):
    sphere, points = planted_sphere(plant, objective), starts(10, 8)
    parameter = geoopt.ManifoldParameter(
        points.T.clone(), manifold=geoopt.Sphere()
    )  # one second moment a point there too
    optimizer = geoopt.optim.RiemannianAdam([parameter], lr=0.5, eps=0.0)
    for iteration in range(iterations):
        optimizer.param_groups[0]["lr"] = 0.5 * (1 + math.cos(math.pi * iteration / iterations)) / 2
        optimizer.zero_grad()
        sphere.value(parameter.T).sum().backward()
        optimizer.step()
    torch.testing.assert_close(
        radam(sphere.euclidean, points, iterations, 0.5), parameter.T.detach(), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("objective", ["l1", "huber"])
def test_rgd_is_that_of_geoopt(plant, objective):
    sphere = planted_sphere(plant, objective)
    for point in starts(10, 4).T:
        parameter = geoopt.ManifoldParameter(point.clone(), manifold=geoopt.Sphere())
        optimizer = geoopt.optim.RiemannianSGD([parameter], lr=1.0)
        first = float(sphere.gradient(point[:, None]).norm())
        for iteration in range(20):  # rounding grows a hundredfold in ten more
            optimizer.param_groups[0]["lr"] = 0.3 / first * (1 + math.cos(math.pi * iteration / 20)) / 2
            optimizer.zero_grad()
            sphere.value(parameter[:, None]).sum().backward()
            optimizer.step()
        torch.testing.assert_close(rgd(sphere, point[:, None], 20, 0.3)[:, 0], parameter.detach(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("objective", ["l4", "logcosh"])
def test_the_trust_region_ends_where_that_of_pymanopt_does(plant, objective):
    sphere = planted_sphere(plant, objective)
    manifold = PymanoptSphere(10)

    @pymanopt.function.pytorch(manifold)
    def cost(point):
        return sphere.value(point[:, None]).sum()

    oracle = TrustRegions(max_iterations=300, min_gradient_norm=1e-9, verbosity=0)
    points = starts(10, 6)
    ends = rtr(sphere, points, 300, math.pi / 8)  # pymanopt's first radius
    for start, end in zip(points.T, ends.T, strict=True):
        expected = oracle.run(pymanopt.Problem(manifold, cost), initial_point=start.numpy()).point
        torch.testing.assert_close(end, torch.from_numpy(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", ["l4", "huber", "logcosh"])
def test_the_trust_region_ends_on_local_minima(plant, objective):
    sphere = planted_sphere(plant, objective)
    for end in rtr(sphere, starts(10, 8), 300, 0.4).T:
        assert sphere.gradient(end[:, None]).norm() < 2e-8
        aside = torch.linalg.svd(end[None]).Vh[1:].T  # the tangent space
        curvature = aside.T @ sphere.hessian(end[:, None].expand(10, 9))(aside)
        assert torch.linalg.eigvalsh(curvature).min() > -1e-9
