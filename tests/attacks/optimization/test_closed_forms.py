"""The attacks on the first linear layer that need no labels: the closed form and the independent components."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from gibench.attack import Context
from gibench.attacks.analytic import Analytic
from gibench.attacks.cocktailparty import CocktailParty, _Components, _Mixture, log_cosh
from gibench.attacks.exact.layers import find_first_linear
from gibench.observation import Update


def fresh():
    return Context(torch.Generator().manual_seed(0), torch.device("cpu"))


def errors(found, truth):
    """Largest pixel error of each true image's nearest reconstruction."""
    return (truth[:, None] - found[None]).abs().flatten(2).amax(2).amin(1)


def test_one_image_comes_back_exactly_and_certified_from_any_linear_layer(make_scene, relu_net):
    for build in (relu_net, lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5))):
        scene = make_scene(build, [2], knows=())
        found = Analytic()(scene.observation, fresh()).reconstruction
        assert len(found.images) == 1
        assert found.certified.all()
        assert errors(found.images, scene.images).max() < 1e-5


@pytest.mark.parametrize("factor", [0.9, 1.0])
@pytest.mark.parametrize("hidden", [True, False])
def test_a_bias_scaled_by_itself_is_not_certified(make_scene, relu_net, hidden, factor):
    build = relu_net if hidden else lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    scene = make_scene(build, [2], images=0.25 + 0.5 * torch.rand(1, 3, 8, 8))
    tensors = scene.observation.update.tensors
    scaled = Update({**tensors, "1.bias": factor * tensors["1.bias"]})
    found = Analytic()(replace(scene.observation, update=scaled), fresh()).reconstruction
    assert (errors(found.images, scene.images).max() < 1 / 510) == found.certified.all() == (factor == 1)


def test_images_that_have_neurons_of_their_own_are_found_and_nothing_is_certified_in_a_batch(make_scene, relu_net):
    scene = make_scene(partial(relu_net, 4000), [0, 1, 2, 3], dtype=torch.float32)
    found = Analytic()(scene.observation, fresh()).reconstruction
    assert (errors(found.images, scene.images.float()) < 1 / 510).sum() >= 2
    assert not found.certified.any()


def test_no_mixture_of_two_images_is_certified_though_most_neurons_see_both(make_scene, relu_net):
    near = torch.rand(1, 3, 8, 8) * 0.8
    scene = make_scene(relu_net, [1, 1], images=torch.cat([near, near + 1e-2]))
    assert not Analytic()(scene.observation, fresh()).reconstruction.certified.any()


def test_two_logits_that_always_agree_certify_nothing(make_scene):
    scene = make_scene(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), [1, 1, 1], classes=2)
    found = Analytic()(scene.observation, fresh()).reconstruction
    assert errors(found.images, scene.images).min() > 1e-2
    assert not found.certified.any()


def test_copies_of_one_neuron_that_agree_certify_nothing(make_scene):
    def copies():
        net = nn.Sequential(nn.Flatten(), nn.Linear(192, 30), nn.ReLU(), nn.Linear(30, 5))
        with torch.no_grad():
            net[1].bias[0] = 10  # active for every image
            for tensor in (net[1].weight, net[1].bias, net[3].weight.T):
                tensor[:] = tensor[:1].clone()
        return net

    scene = make_scene(copies, [1, 1, 1])
    found = Analytic()(scene.observation, fresh()).reconstruction
    assert errors(found.images, scene.images).min() > 1e-2
    assert not found.certified.any()


def test_the_closed_form_returns_no_more_than_the_batch_unless_certified(make_scene, relu_net):
    scene = make_scene(partial(relu_net, 300), [0, 1, 2, 3, 4, 0])
    assert len(Analytic()(scene.observation, fresh()).reconstruction.images) <= 6


@pytest.mark.parametrize("attack", [Analytic(), CocktailParty()], ids=["analytic", "cocktailparty"])
@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 5)), "linear layer"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False)), "bias"),
    ],
    ids=["convolution", "no-bias"],
)
def test_models_without_such_a_layer_are_skipped_with_the_reason(make_scene, attack, build, reason):
    run = attack(make_scene(build, [0]).observation, fresh())
    assert run.status == "skipped"
    assert reason in run.reason


def test_the_search_for_the_layer_leaves_the_model_as_it_was(make_scene, relu_net):
    observation = make_scene(relu_net, [0]).observation
    assert find_first_linear(observation.model, observation.image_shape).name == "1"
    assert observation.model.training
    assert not observation.model[1]._forward_pre_hooks


def test_whitened_rows_are_centred_uncorrelated_and_made_from_the_gradient():
    mixture = torch.randn(30, 4, dtype=torch.float64) @ torch.rand(4, 200, dtype=torch.float64)
    found = _Mixture.of(mixture, 4, torch.Generator().manual_seed(0))
    rows = found.whitened
    assert torch.allclose(rows.mean(1), torch.zeros(4, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(rows @ rows.T / 199, torch.eye(4, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(found.whitening @ (mixture - mixture.mean(1, keepdim=True)), rows, atol=1e-9)


def test_log_cosh_neither_overflows_nor_loses_small_values():
    values = torch.tensor([-1000.0, 0.0, 1e-3, 2.0], dtype=torch.float64)
    expected = [1000 - math.log(2), 0, math.log(math.cosh(1e-3)), math.log(math.cosh(2))]
    assert log_cosh(values).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("left_out", ["negentropy", "decorrelation", "total_variation", None])
def test_the_slope_of_the_components_is_the_derivative_of_their_value(left_out):
    attack = CocktailParty(**({left_out: 0.0} if left_out else {}))
    generator = torch.Generator().manual_seed(2)
    components = _Components(attack, torch.randn(4, 75, dtype=torch.float64, generator=generator), (3, 5, 5))
    points = torch.randn(1, 16, dtype=torch.float64, generator=generator)
    slope = components(points)[1]
    for entry in range(16):
        step = torch.zeros_like(points)
        step[0, entry] = 1e-6
        rise = (components(points + step)[0] - components(points - step)[0]) / 2e-6
        assert rise.item() == pytest.approx(slope[0, entry].item(), rel=1e-5, abs=1e-7)


def blocks():
    """Four images that are smooth and unlike each other: halves and quarters, dark or bright."""
    images = torch.full((4, 3, 16, 16), 0.1)
    images[0, :, :8] = 0.9
    images[1, :, :, :8] = 0.8
    images[2, :, 4:12, 4:12] = 1.0
    images[3, :, ::8] = 0.5
    images[3, :, 10:] = 0.7
    return images + 0.05 * torch.rand(images.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("knows", [("batch_size",), ()], ids=["batch-size-known", "read-off-the-rank"])
def test_independent_components_find_smooth_images_better_than_grey_does(make_scene, relu_net, knows):
    torch.manual_seed(1)
    truth = blocks()
    scene = make_scene(partial(relu_net, 100, 768), [0, 1, 2, 3], (3, 16, 16), knows=knows, images=truth)
    run = CocktailParty(max_iterations=2000, step_size=0.01)(scene.observation, fresh())
    assert run.status == "ok"
    assert run.reconstruction.images.shape == truth.shape
    squared = (truth[:, None] - run.reconstruction.images[None]).square().flatten(2).mean(2).amin(1)
    assert squared.mean() < (truth - 0.5).square().mean() / 3


def test_a_batch_beyond_the_rank_is_skipped(make_scene, relu_net):
    run = CocktailParty()(make_scene(partial(relu_net, 3), [0, 1, 2, 3]).observation, fresh())
    assert run.status == "skipped"
    assert "rank" in run.reason
