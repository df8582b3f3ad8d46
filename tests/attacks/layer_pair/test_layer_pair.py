"""The equations of the second layer against planted factors, and the attack that solves them on real batches."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench import seeds, training
from gibench.attack import Context
from gibench.attacks.exact.linear_layer import features
from gibench.attacks.exact.low_rank import factorize
from gibench.attacks.layer_pair import LayerPair
from gibench.attacks.layer_pair.equations import Equations
from gibench.attacks.layer_pair.next_layer import NextLayer
from gibench.attacks.layer_pair.rounds import find_images
from gibench.attacks.spearpp import SpearPP
from gibench.models.mlp import MLP


def equations(planted, sigma=0.0, outputs=60, relu=False):
    """The next layer of a planted gradient, as if it had that many outputs, and the true points of its images.

    With a ReLU after it, the signals that come back through it have their zeros.
    """
    generator = torch.Generator().manual_seed(9)
    factors = planted.factors()
    activations = planted.layer.activation.function(planted.inputs @ planted.layer.weight.T + planted.layer.bias)
    signals = torch.randn(outputs, len(activations), generator=generator, dtype=torch.float64)
    then = None
    if relu:
        then = (
            torch.randn(outputs, activations.shape[1], generator=generator, dtype=torch.float64),
            torch.zeros(outputs),
        )
        signals *= then[0] @ activations.T > 0
    weight = signals @ activations
    weight += sigma * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    second = factorize(weight, weight[:, 0], generator)
    basis, triangle = torch.linalg.qr(features(factors, planted.layer))
    ones = torch.linalg.solve_triangular(triangle.T, factors.ones[:, None], upper=False)[:, 0]
    span = outputs**0.5 * second.inputs / second.singular_values[:, None]
    linear = Equations(basis, span.T, ones, planted.layer.activation)
    following = NextLayer(linear, planted.gradient(factors), second, triangle, then)
    return following, triangle @ torch.linalg.inv(planted.truth(factors).vectors).T


def test_true_images_satisfy_their_equations(plant):
    planted = plant(8, 100)
    following, points = equations(planted)
    judged = following.judge(points)
    torch.testing.assert_close(judged.images, planted.inputs, rtol=0, atol=1e-9)
    assert judged.outside.max() < 1e-10
    assert judged.solved.all()


def test_a_pattern_alone_tells_the_image(plant):
    planted = plant(8, 100)
    following, points = equations(planted)
    start = torch.randn(points.shape, generator=torch.Generator().manual_seed(1), dtype=points.dtype)
    solved = following.equations.solve(~planted.zeros, start)
    cosines = (solved * points).sum(dim=0) / points.norm(dim=0)
    torch.testing.assert_close(cosines, torch.ones(8).double(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("neurons", [60, 100, 400])  # of 400 a part of the equations is used first
def test_random_starts_end_at_the_images(plant, neurons):
    planted = plant(8, neurons)
    following, points = equations(planted)
    generator = torch.Generator().manual_seed(3)
    starts = following.random(60, following.space(points[:, :0]), generator)
    ends = following.judge(following.equations.fixed_points(starts))
    images = ends.images[ends.solved]
    errors = (images[:, None] - planted.inputs).abs().amax(dim=2)
    assert errors.amin(dim=1).max() < 1e-6
    assert errors.amin(dim=0).max() < 1e-6


def test_starts_leave_out_what_is_found(plant):
    planted = plant(8, 100)
    following, points = equations(planted)
    truth = planted.truth(following.gradient.factors).vectors
    starts = following.random(5, following.space(truth[:, :6]), torch.Generator().manual_seed(0))
    rows = torch.linalg.solve_triangular(following.triangle, starts, upper=True)
    assert (truth[:, :6].T @ rows).abs().max() < 1e-9
    mix = torch.linalg.lstsq(points, starts).solution
    assert mix[:6].abs().max() < 1e-9


def test_what_noise_leaves_over_is_predicted(plant):
    residuals = []
    for seed in range(10):
        planted = plant(8, 200, 60, seed, sigma=1e-6)
        following, points = equations(planted, sigma=1e-6)
        residuals.append(following.judge(following.equations.settled(points)).residual)
    residual = torch.cat(residuals)
    assert 0.8 < residual.square().mean() ** 0.5 < 1.1
    assert residual.max() < 2


def test_the_predicted_error_is_the_actual_one_under_noise(plant):
    shares = []
    for seed in range(10):
        planted = plant(8, 200, 60, seed, sigma=1e-6)
        following, points = equations(planted, sigma=1e-6)
        judged = following.judge(following.equations.settled(points))
        error = (judged.images[:, None] - planted.inputs).abs().amax(dim=2).amin(dim=1)
        shares.append(error / following.errors(judged))
    share = torch.cat(shares)
    assert share.max() < 5
    assert share.median() > 0.7  # the largest of 60 numbers, in units of the least certain one's deviation


def test_two_images_of_one_pattern_are_determined_by_nothing(plant):
    first = plant(6, 100)
    inputs = first.inputs.clone()
    inputs[1] = inputs[0] + 1e-4 * plant(6, 100, seed=1).inputs[0]
    planted = plant(neurons=100, inputs=inputs)
    assert torch.equal(planted.zeros[:, 0], planted.zeros[:, 1])
    following, points = equations(planted)
    errors = following.errors(following.judge(points))
    assert errors[:2].min() > 1e3 * errors[2:].max()


@pytest.mark.parametrize(
    ("batch_size", "seed", "options"),
    [
        (20, 0, {}),
        (20, 1, {"labels": "same"}),
        (20, 0, {"depth": 2}),
        (24, 0, {"width": 80}),  # less than four neurons for each image
        (1, 0, {"width": 30}),
        (8, 0, {"depth": 1}),  # the ten classes have rank for it
        (8, 0, {"knows": "nothing"}),
    ],
)
def test_real_batches_are_exact_and_certified(see, context, batch_size, seed, options):
    seen = see(batch_size, seed, **options)
    result = LayerPair()(seen.observation, context()).reconstruction
    assert len(result.images) == batch_size
    assert seen.exact(result.images).all()
    assert result.certified.all()


@pytest.mark.parametrize(("seeds", "most", "claimed"), [(1, 16, 10), pytest.param(3, 50, 30, marks=pytest.mark.slow)])
def test_certificates_hold_under_noise(see, context, seeds, most, claimed):
    exact = certified = 0
    for seed in range(seeds):
        seen = see(20, seed, noise=2e-6, labels="same" if seed % 2 else "iid")
        result = LayerPair()(seen.observation, context(seed)).reconstruction
        right = seen.exact(result.images)
        assert not (result.certified & ~right).any()
        exact, certified = exact + int(right.sum()), certified + int(result.certified.sum())
    assert exact >= most
    assert certified >= claimed


@pytest.mark.parametrize("images", [0, 3])
def test_what_time_does_not_suffice_for_is_not_certified(plant, monkeypatch, images):
    monkeypatch.setattr(
        "gibench.attacks.layer_pair.equations.chunks", lambda count, *_: (slice(k, k + 1) for k in range(count))
    )
    following, points = equations(plant(8, 100))
    judged, asked = following.judge(points), itertools.count()
    errors = following.errors(judged, lambda: next(asked) >= images)
    assert torch.equal(errors.isfinite(), torch.arange(8) < images)
    torch.testing.assert_close(errors[:images], following.errors(judged)[:images])


def test_strong_noise_leaves_nothing_certified(see, context):
    result = LayerPair()(see(20, noise=2e-4).observation, context()).reconstruction
    assert not result.certified.any()


def test_a_next_layer_of_another_batch_certifies_nothing(see, context):
    seen, other = see(8, 0), see(8, 1, model=see(8, 0).observation.model)
    tensors = dict(seen.observation.update.tensors) | {
        name: tensor for name, tensor in other.observation.update.tensors.items() if not name.startswith("1.")
    }
    mixed = replace(seen.observation, update=replace(seen.observation.update, tensors=tensors))
    result = LayerPair(patience=2)(mixed, context()).reconstruction
    assert not result.certified.any()
    assert result.diagnostics["finding"] == "8 of 8 images are not found"


def test_the_same_seed_gives_the_same_bits(see, context):
    seen = see(8)
    first, again = (LayerPair()(seen.observation, context()).reconstruction for _ in range(2))
    assert torch.equal(first.images, again.images)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 60), nn.ReLU()),
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 60), nn.ReLU(), nn.BatchNorm1d(60), nn.Linear(60, 11)),
        nn.Sequential(nn.Flatten(), nn.Linear(3072, 60), nn.ReLU(), nn.Dropout(), nn.Linear(60, 11)),
    ],
)
def test_other_networks_are_refused(see, context, model):
    run = LayerPair()(see(4, model=model).observation, context())
    assert run.status == "skipped"
    assert "needs a linear layer that the first layer's activation feeds" in run.reason


def test_a_next_layer_of_too_low_a_rank_is_said(see, context):
    result = LayerPair()(see(20, depth=1).observation, context()).reconstruction  # ten classes
    assert len(result.images) == 0
    assert "and with rank 20 in the first it had to be as much" in result.diagnostics["finding"]


def test_too_few_neurons_are_said(see, context):
    result = LayerPair()(see(8, width=20).observation, context()).reconstruction
    assert len(result.images) == 0
    assert "20 active neurons are too few" in result.diagnostics["finding"]


def test_copies_of_neurons_are_no_more_neurons(see, context):
    model = see(8).observation.model
    with torch.no_grad():
        for parameter in (model[1].weight, model[1].bias):
            parameter[:] = parameter[:20].repeat(10, *[1] * (parameter.ndim - 1))
    result = LayerPair()(see(8, model=model).observation, context()).reconstruction
    assert len(result.images) == 0
    assert "20 active neurons are too few" in result.diagnostics["finding"]
    assert "copies not counted" in result.diagnostics["finding"]


def test_no_rank_gap_gives_no_images(see, context):
    result = LayerPair()(see(20, noise=1.0).observation, context()).reconstruction
    assert len(result.images) == 0
    assert "no rank gap" in result.diagnostics["finding"]


def test_the_next_layer_comes_first_and_sparse_columns_only_where_it_is_not_enough(see, context):
    seen = see(20, 5, labels="same")
    weak = "splitting/last-images"
    alone, both = (
        SpearPP(rounds=1, without=without)(seen.observation, context()).reconstruction
        for without in (f"{weak}/next-layer", weak)
    )
    assert alone.diagnostics["directions_found"] < 20
    assert not alone.certified.any()
    assert seen.exact(both.images).all()
    assert both.certified.all()
    assert both.diagnostics["images_from_next_layer"] == 20
    assert both.diagnostics["rounds"] == 0
    noisy = SpearPP()(see(8, noise=1e-5).observation, context()).reconstruction
    assert noisy.diagnostics["rounds"] > 0


def test_what_the_next_layer_knows_completes_a_batch_of_sparse_columns(see, context, monkeypatch):
    seen = see(20, 5, labels="same")
    patience = []

    def blind(following, points, rounds, starts, lent):  # the first look, by products alone, finds a part
        patience.append(rounds)
        found = find_images(following, points, rounds, starts, lent)
        return found if rounds else found.select(torch.arange(12))

    monkeypatch.setattr("gibench.attacks.spearpp.attack.find_images", blind)
    monkeypatch.setattr("gibench.attacks.spearpp.attack.look_with_free_scales", lambda *known: known[:2])
    weak = {"rounds": 1, "without": "splitting/last-images"}
    both = SpearPP(**weak)(seen.observation, context()).reconstruction
    assert patience == [0]
    assert both.diagnostics["rounds"] == 1
    assert seen.exact(both.images).all()
    assert both.certified.all()
    assert "20 images come from the next layer's gradient" in both.diagnostics["finding"]


def test_a_deadline_leaves_what_the_next_layer_has_given_by_then(see, context, monkeypatch):
    seen, late = see(20), []

    def slow(following, points, rounds, starts, lent):
        found = find_images(following, points, rounds, starts, lent).select(torch.arange(12))
        late.append(True)
        return found

    monkeypatch.setattr("gibench.attacks.spearpp.attack.find_images", slow)
    lent = context()
    object.__setattr__(lent, "expired", lambda: bool(late))
    result = SpearPP().reconstruct(seen.observation, lent)
    assert len(result.images) == 12
    assert seen.exact(result.images).all()
    assert result.diagnostics["rounds"] == 0
    assert "8 of 20 images are not found" in result.diagnostics["finding"]


def test_images_that_sparse_columns_certify_are_left_alone(see, context, monkeypatch):
    seen = see(8)
    nothing = torch.zeros(8, dtype=torch.bool), torch.zeros(8), ""
    monkeypatch.setattr("gibench.attacks.spearpp.attack.next_claims", lambda *_: nothing)
    result = SpearPP()(seen.observation, context()).reconstruction
    assert result.certified.all()
    assert seen.exact(result.images).all()
    assert result.diagnostics["images_from_next_layer"] == 0


@pytest.mark.parametrize("draw", [1, 4])
def test_a_near_duplicate_whose_direction_no_gradient_tells_is_found_beside_the_other(see, photos, draw):
    with seeds.isolated(1, "model"):
        model = MLP(width=200, depth=5).build(photos.image_shape, photos.num_classes)
        training.train(model, photos, 20, torch.default_generator)  # two images differ at few neurons then
    context = Context(torch.Generator().manual_seed(draw), torch.device("cpu"))
    result = LayerPair()(see(20, 1, model=model).observation, context).reconstruction
    assert result.diagnostics["solved"] == 20
    assert int(result.certified.sum()) == 20
