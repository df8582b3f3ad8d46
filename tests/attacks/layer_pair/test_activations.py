"""Activations other than ReLU: planted images, their equations, directions and certificates, and real batches."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gibench import seeds
from gibench.attacks.exact.activation import RELU, Activation
from gibench.attacks.exact.linear_layer import read_gradient
from gibench.attacks.layer_pair import LayerPair
from gibench.attacks.layer_pair.directions import directions_by_products
from gibench.attacks.layer_pair.next_layer import certain, read_next_layer
from gibench.attacks.layer_pair.search import candidates, descend
from gibench.attacks.spear import Spear
from gibench.attacks.spearpp import SpearPP
from gibench.datasets.base import Split
from gibench.models.mlp import MLP
from tests.attacks.conftest import plant
from tests.attacks.layer_pair.test_layer_pair import equations

OTHERS = {
    "leaky_relu": Activation("LeakyReLU", F.leaky_relu, 0.01),
    "steep": Activation("LeakyReLU", lambda x: F.leaky_relu(x, 0.5), 0.5),
    "gelu": Activation("GELU", F.gelu),
    "silu": Activation("SiLU", F.silu),
    "tanh": Activation("Tanh", torch.tanh),
    "sigmoid": Activation("Sigmoid", torch.sigmoid),
}
every_other = pytest.mark.parametrize("name", OTHERS)


def never():
    return False


def network(photos, activation, width=100, depth=3, seed=0):
    with seeds.isolated(seed, "model"):
        return MLP(width=width, depth=depth, activation=activation).build(photos.image_shape, photos.num_classes)


def read(seen):
    """What the attack reads of a real client."""
    gradient = read_gradient(seen.observation, torch.Generator().manual_seed(0))
    return gradient, read_next_layer(seen.observation, gradient, torch.Generator().manual_seed(0))


def points_of(seen, gradient, following):
    """The points `[B, B]` of the true images."""
    inputs = seen.observation.normalize(seen.truth.images).flatten(1).double()
    known = torch.cat([gradient.factors.inputs.T, gradient.factors.ones[None]])
    return following.triangle @ torch.linalg.lstsq(known, torch.cat([inputs.T, torch.ones(1, len(inputs))])).solution


@settings(max_examples=14, deadline=None)
@given(
    name=st.sampled_from(["relu", *OTHERS]), batch=st.integers(1, 8), spare=st.integers(30, 60), seed=st.integers(0, 99)
)
def test_true_images_satisfy_their_equations(name, batch, spare, seed):
    planted = plant(batch, 2 * batch + spare, 40, seed, activation=OTHERS.get(name, RELU))
    following, points = equations(planted)
    judged = following.judge(points)
    torch.testing.assert_close(judged.images, planted.inputs, rtol=0, atol=1e-8)
    assert judged.outside.max() < 1e-9
    assert judged.solved.all()


@every_other
def test_a_descent_follows_the_slope_of_the_share_outside(name):
    following = equations(plant(8, 60, activation=OTHERS[name]))[0]
    start = torch.randn(8, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = following.equations.oriented(start / start.norm(dim=0))
    before = following.equations.outside(start)
    held = start.clone().requires_grad_()
    slope = torch.autograd.grad(following.equations.outside(held).sum(), held)[0]
    slope = slope - start * (start * slope).sum(dim=0)
    moved, _ = descend(following.equations, start, 1, 1e-5, never)
    torch.testing.assert_close((moved - start) / 1e-5, -slope / slope.norm(dim=0), rtol=1e-3, atol=1e-3)
    assert (following.equations.outside(moved) < before).all()


@every_other
def test_random_starts_end_at_the_images(name):
    planted = plant(6, 80, activation=OTHERS[name])
    following, points = equations(planted)
    space = following.space(points[:, :0])
    starts = following.random(40, space, torch.Generator().manual_seed(3))
    ends = following.judge(candidates(following, following.equations, space, starts, never))
    images = ends.images[ends.solved]
    errors = (images[:, None] - planted.inputs).abs().amax(dim=2)
    assert errors.amin(dim=1).max() < 1e-6
    assert (errors.amin(dim=0) < 1e-6).sum() >= 4  # of 6; nothing tells these images apart but where starts lie


@every_other
def test_the_predicted_error_is_the_actual_one_under_noise(name):
    shares = []
    for seed in range(4):
        planted = plant(8, 200, 60, seed, sigma=1e-6, activation=OTHERS[name])
        following, points = equations(planted, sigma=1e-6)
        judged = following.judge(following.equations.settled(points))
        error = (judged.images[:, None] - planted.inputs).abs().amax(dim=2).amin(dim=1)
        shares.append(error / following.errors(judged))
        assert judged.residual.max() < 2
    share = torch.cat(shares)
    assert share.max() < 5
    assert share.median() > 0.7  # the largest of 60 numbers, in units of the least certain one's deviation


@pytest.mark.parametrize("activation", ["leaky_relu", "gelu", "silu", "tanh"])
def test_real_batches_are_exact_and_certified(see, context, photos, activation):
    seen = see(6, model=network(photos, activation, 60, 2))
    result = LayerPair()(seen.observation, context()).reconstruction
    assert seen.exact(result.images).all()
    assert result.certified.all()


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["leaky_relu", "gelu"])
@pytest.mark.parametrize("seed", range(2))
def test_a_batch_of_twenty_is_exact(see, context, photos, activation, seed):
    seen = see(20, seed, model=network(photos, activation, 200, 5, seed))
    result = LayerPair()(seen.observation, context(seed)).reconstruction
    assert seen.exact(result.images).all()
    assert result.certified.all()


@pytest.mark.parametrize("activation", ["leaky_relu", "gelu"])
def test_directions_of_images_are_orthogonal_to_all_others(see, photos, activation):
    seen = see(6, model=network(photos, activation))
    gradient, following = read(seen)
    points = points_of(seen, gradient, following)
    directions = directions_by_products(following, points)
    rows = torch.linalg.solve_triangular(following.triangle, points, upper=True)
    seen_by_first = directions.first.T @ (rows / rows.norm(dim=0))
    activations = following.equations.left(points)[0]
    inside = following.equations.activations.T @ activations / following.second.singular_values[:, None]
    seen_by_second = directions.second.T @ (inside / inside.norm(dim=0))
    for found in (seen_by_first, seen_by_second):
        assert (found - found.diagonal().diag()).abs().max() < 1e-3
        assert found.diagonal().abs().min() > 1e-2


def test_where_images_depend_on_one_another_no_direction_is_read(see, photos):
    model = network(photos, "gelu", 100, 2)
    model = nn.Sequential(*list(model)[:5], nn.BatchNorm1d(100), *list(model)[5:])
    seen = see(4, model=model)
    gradient, following = read(seen)
    before = {name: each.clone() for name, each in model.named_buffers()}
    assert directions_by_products(following, points_of(seen, gradient, following)).first.shape[1] == 0
    assert all(torch.equal(each, before[name]) for name, each in model.named_buffers())


@every_other
@pytest.mark.parametrize("between", [2e-3, 0.1])
def test_no_point_between_near_duplicates_is_certain(name, between):
    """Between two images that are nearly one every point nearly satisfies the equations."""
    first = plant(6, 100)
    inputs = first.inputs.clone()
    inputs[1] = inputs[0] + between * plant(6, 100, seed=1).inputs[0]
    planted = plant(neurons=100, inputs=inputs, activation=OTHERS[name])
    following, points = equations(planted)
    share = torch.linspace(-1, 2, 31, dtype=torch.float64)
    line = points[:, :1] + share * (points[:, 1:2] - points[:, :1])
    judged = following.judge(torch.cat([line, points], dim=1))
    scale = torch.tensor([0.25], dtype=torch.float64)
    sure = certain(following, judged, following.errors(judged), scale)
    wrong = ((judged.images[:, None] - inputs).abs().amax(dim=2).amin(dim=1) * 0.25) > 1 / 510
    assert wrong.sum() >= 10 or between < 1e-2
    assert not (sure & wrong).any()
    assert sure[-4:].all()  # the other images


@pytest.mark.parametrize(("activation", "factor"), [("gelu", 1e-3), ("silu", 1e-1)])
def test_where_an_activation_is_all_but_linear_nothing_false_is_certified(see, context, photos, activation, factor):
    """Then all mixtures of images whose parts sum to one satisfy the equations, but for what is above the noise."""
    model = network(photos, activation)
    with torch.no_grad():
        model[1].weight.mul_(factor)
        model[1].bias.mul_(factor)
    seen = see(5, model=model)
    result = LayerPair(patience=1)(seen.observation, context()).reconstruction
    assert not (result.certified & ~seen.exact(result.images)).any()


@pytest.mark.parametrize("activation", ["gelu"])
def test_false_scales_are_no_images(see, context, photos, activation):
    """A bias gradient of another scale: the equations tell the true one, and nothing false is certified."""
    seen = see(6, model=network(photos, activation))
    tensors = dict(seen.observation.update.tensors)
    tensors["1.bias"] = 0.9 * tensors["1.bias"]
    changed = replace(seen.observation, update=replace(seen.observation.update, tensors=tensors))
    result = LayerPair(patience=2)(changed, context()).reconstruction
    assert seen.exact(result.images).sum() == 6
    assert not (result.certified & ~seen.exact(result.images)).any()


def test_repeated_images_are_not_certified(see, context, photos):
    drawn = see(6).truth
    again = torch.tensor([0, 1, 2, 3, 4, 4])
    seen = see(6, truth=Split(drawn.images[again], drawn.labels[again]), model=network(photos, "gelu"))
    result = LayerPair(patience=1)(seen.observation, context()).reconstruction
    assert not result.certified.any()
    assert "the rank is 5 and the batch 6" in result.diagnostics["withheld"]


@pytest.mark.parametrize("attack", [SpearPP(), Spear()])
def test_attacks_on_zeros_name_the_one_that_needs_none(see, context, photos, attack):
    run = attack(see(4, model=network(photos, "silu")).observation, context())
    assert run.status == "skipped"
    assert "needs a ReLU" in run.reason
    assert "SiLU has none: use layer-pair" in run.reason


def test_what_works_in_place_is_read_all_the_same(see, context, photos):
    model = network(photos, "gelu")
    for place in (2, 4, 6):
        model[place] = nn.SiLU(inplace=True)
    seen = see(6, model=model)
    result = LayerPair()(seen.observation, context()).reconstruction
    assert seen.exact(result.images).all()
    assert result.certified.all()
