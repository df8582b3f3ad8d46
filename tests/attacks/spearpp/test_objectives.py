"""The objectives and their derivatives on the sphere."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from gibench.attacks.spearpp.objectives import OBJECTIVES, WIDTH, Sphere

SMOOTH = [name for name, each in OBJECTIVES.items() if each.curvature]
VALUES = {
    "l1": np.abs,
    "l4": lambda z: -(z**4) / 4,
    "huber": lambda z: special.huber(WIDTH, z) / WIDTH,
    "logcosh": lambda z: WIDTH * np.log(np.cosh(z / WIDTH)),
}


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sphere_and_points(name, count=7):
    points = draw(6, count, seed=1)
    return Sphere(draw(40, 6), OBJECTIVES[name]), points / points.norm(dim=0)


def extended(sphere):
    """The objective of a single vector of any length, which only its direction decides."""
    return lambda q: sphere.objective.value(sphere.basis @ (q / q.norm())).mean()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_values_are_those_of_the_closed_form(name):
    entries = torch.cat([draw(200), draw(200) * WIDTH, torch.tensor([0.0, WIDTH, -WIDTH])])
    np.testing.assert_allclose(OBJECTIVES[name].value(entries), VALUES[name](entries.numpy()), rtol=1e-12, atol=1e-15)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.sampled_from(list(OBJECTIVES)),
    st.floats(-5, 5).filter(lambda z: min(abs(abs(z) - kink) for kink in (0, WIDTH, 1)) > 1e-6),  # of z and z WIDTH
)
def test_slopes_and_curvatures_are_those_of_autograd(name, entry):
    z = torch.tensor([entry, entry * WIDTH], dtype=torch.float64, requires_grad=True)
    objective = OBJECTIVES[name]
    torch.testing.assert_close(
        objective.slope(z.detach()), torch.autograd.grad(objective.value(z).sum(), z)[0], rtol=1e-9, atol=1e-12
    )
    if objective.curvature:
        slope = torch.autograd.grad(objective.slope(z).sum(), z)[0]
        torch.testing.assert_close(objective.curvature(z.detach()), slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "most"), [("huber", WIDTH / 2), ("logcosh", WIDTH * math.log(2))])
def test_smooth_stand_ins_lie_below_the_absolute_value_by_no_more_than_they_should(name, most):
    entries = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    below = entries.abs() - OBJECTIVES[name].value(entries)
    assert below.min() >= -1e-15
    assert below.max() == pytest.approx(most)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_float32_entries_of_any_size_keep_all_finite(name):
    entries = torch.tensor([0.0, 1e-30, -1e3, 1e4])
    assert all(each(entries).isfinite().all() for each in vars(OBJECTIVES[name]).values() if each)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_riemannian_gradients_are_those_of_autograd(name):
    sphere, points = sphere_and_points(name)
    gradient = sphere.gradient(points)
    for each, expected in zip(gradient.T, points.T, strict=True):
        torch.testing.assert_close(each, torch.autograd.functional.jacobian(extended(sphere), expected))
    torch.testing.assert_close(sphere.value(points)[0], extended(sphere)(points[:, 0]))


@pytest.mark.parametrize("name", SMOOTH)
def test_hessian_vector_products_are_those_of_autograd(name):
    sphere, points = sphere_and_points(name)
    vectors = draw(*points.shape, seed=2)
    vectors = vectors - points * (points * vectors).sum(dim=0)
    products = sphere.hessian(points)(vectors)
    for point, vector, product in zip(points.T, vectors.T, products.T, strict=True):
        # along great circles, and so in the tangent space, it is the Hessian of the extension
        whole = torch.autograd.functional.hessian(extended(sphere), point) @ vector
        torch.testing.assert_close(product, whole - point * (point @ whole))


def test_l1_has_no_hessian():
    sphere, points = sphere_and_points("l1")
    with pytest.raises(ValueError, match="no second derivative"):
        sphere.hessian(points)
