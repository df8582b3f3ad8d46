"""Images of the features that an attack on the head recovers, and what is claimed of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench.attacks.layer_pair import LayerPair
from gibench.attacks.spearpp import SpearPP
from gibench.attacks.trunk import prior
from gibench.attacks.trunk.attack import _shared, images_behind
from gibench.attacks.trunk.equations import read_features
from gibench.attacks.trunk.network import behind_trunk
from tests.attacks.trunk.conftest import network, pooled, skipping, strided


def two_layers():
    """The head's first two layers are wide, as `layer-pair` asks."""
    return nn.Sequential(*strided(width=150)[:-1], nn.Linear(150, 60), nn.ReLU(), nn.Linear(60, 4))


def parts(seen):
    """What is behind and before the trunk, the true images as the model takes them, and their features."""
    behind = behind_trunk(seen.observation)
    images = seen.observation.normalize(seen.truth.images)
    with torch.no_grad():
        return behind, images, behind.head.trunk(images)


@pytest.mark.parametrize(("attack", "model"), [(SpearPP(), strided), (LayerPair(), two_layers)])
def test_behind_an_injective_trunk_images_are_exact_and_certified(see_small, context, attack, model):
    seen = see_small(model(), 4)
    run = attack(seen.observation, context())
    assert (run.status, run.reason) == ("ok", "")
    found = run.reconstruction
    assert seen.exact(found.images).all()
    assert found.certified.tolist() == [True] * 4
    told = found.diagnostics
    assert (told["rank"], told["features_certified"], told["inverted"]) == (4, 4, 4)
    assert max(told["predicted_error_by_image"]) < 1e-3


@pytest.mark.parametrize("model", [pooled, skipping])
def test_where_features_do_not_tell_the_image_they_are_claimed_alone(see_small, context, monkeypatch, model):
    monkeypatch.setattr(prior, "_FIRST_STEPS", 30)
    monkeypatch.setattr(prior, "_STEPS", 3)
    seen = see_small(model(), 3)
    found = SpearPP()(seen.observation, context()).reconstruction
    assert found.diagnostics["features_certified"] == 3
    assert not found.certified.any()
    assert "their features do not determine them" in found.diagnostics["withheld"]


class OneChannel(nn.Module):
    """Its first layer is fed by a part of the image."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 60), nn.Linear(60, 4)

    def forward(self, images):
        return self.second(torch.relu(self.first(images[:, 0].flatten(1))))


def test_of_an_image_that_enters_in_part_that_part_is_exact(see_small, context):
    seen = see_small(OneChannel(), 4)
    found = SpearPP()(seen.observation, context()).reconstruction
    assert found.diagnostics["features_certified"] == 4
    assert not found.certified.any()
    apart = (found.images[:, None, 0] - seen.truth.images[None, :, 0]).abs().flatten(2).amax(2)
    assert sorted(apart.argmin(1).tolist()) == [0, 1, 2, 3]
    assert (apart.amin(1) < 1 / 510).all()


CREASE = 102 / 255


def folded(std):
    """Every pixel's distance from a grey, so that an image and what is as far on the other side have the same."""
    fold = nn.Conv2d(3, 6, 1)
    with torch.no_grad():
        fold.weight.zero_()
        for channel in range(3):
            fold.weight[2 * channel, channel], fold.weight[2 * channel + 1, channel] = 1, -1
        fold.bias.copy_(torch.tensor([1, -1]).repeat(3) * (0.5 - CREASE) / std.repeat_interleave(2))
    mix = nn.Conv2d(6, 6, 1)
    with torch.no_grad():
        mix.weight.copy_(torch.eye(3).repeat_interleave(2, 1).repeat(2, 1)[:, :, None, None])
        mix.bias.fill_(0.5)
    return network(fold, nn.ReLU(), mix, nn.ReLU(), features=6 * 64)


def test_of_two_images_with_the_same_features_neither_is_certified(see_small, context, small):
    seen = see_small(folded(small.std), 3)
    observation = replace(seen.observation, mean=torch.full((3,), 0.5))
    behind = behind_trunk(observation)
    with torch.no_grad():
        features = behind.head.trunk(observation.normalize(seen.truth.images))
        beyond = behind.head.trunk(observation.normalize(2 * CREASE - seen.truth.images))
    torch.testing.assert_close(features, beyond, rtol=1e-4, atol=1e-4)
    found = images_behind(behind, observation, known(features), context())
    assert found.diagnostics["inverted"] == 3
    assert min(found.diagnostics["predicted_error_by_image"]) < 1e-4  # derivatives tell nothing of the other
    assert not seen.exact(found.images).any()
    assert not found.certified.any()


def known(features, error=1e-7):
    """An attack on the head that returns these features, certified."""
    from gibench.attack import Reconstruction

    count = len(features)
    told = {"rank": count, "predicted_error_by_image": [error] * count}
    sure = torch.ones(count, dtype=torch.bool)
    return lambda shown, context: Reconstruction(features.view(count, 1, 1, -1).double(), None, sure, told)


def test_wrong_features_give_no_certificate(see_small, context, monkeypatch):
    monkeypatch.setattr(prior, "_STEPS", 1)
    seen = see_small(strided(), 2)
    behind, _, features = parts(seen)
    right = images_behind(behind, seen.observation, known(features), context())
    assert right.certified.all()
    spoiled = features.clone()
    spoiled[0, features[0] > 0] *= 1 + 1e-3
    wrong = images_behind(behind, seen.observation, known(spoiled), context())
    assert wrong.certified.tolist() == [True, False]
    blurred = images_behind(behind, seen.observation, known(features, error=1e-2), context())
    assert not blurred.certified.any()


def test_the_trunks_gradient_tells_what_features_do_not(see_small, context):
    seen = see_small(pooled(), 2)
    behind, _, features = parts(seen)
    update = seen.observation.update
    kept = {name: each for name, each in update.tensors.items() if not name.startswith("0.")}
    without = replace(seen.observation, update=replace(update, tensors=kept))
    errors = []
    for observation in (seen.observation, without):
        images = images_behind(behind, observation, known(features), context()).images
        errors.append(float((images - seen.truth.images).square().mean()))
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.slow
def test_images_do_not_end_beside_a_texture(see_small, context):
    stages = [(3, 24), (24, 48)]
    torch.manual_seed(0)
    layers = [(nn.Conv2d(*channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)) for channels in stages]
    seen = see_small(network(*(layer for stage in layers for layer in stage), features=192), 2, seed=5)
    behind, _, features = parts(seen)
    images = images_behind(behind, seen.observation, known(features), context()).images
    missed = (images - seen.truth.images).square().flatten(1).mean(dim=1)
    assert bool((-10 * missed.log10() > 40).all())  # least squares alone: 25 and 38 dB


def test_of_no_features_at_all_none_is_missed(see_small):
    seen = see_small(pooled(), 2)
    behind, images, features = parts(seen)
    with torch.no_grad():
        features[0] = 0
        equations = read_features(behind.trunk, features, torch.full((2,), 1e-7), None)
        misfit = prior.Joint(equations, None, 1.0).misfit(images.flatten(1).T)
    assert 0 < float(misfit) < torch.inf


def test_the_true_images_suit_all_that_is_known_of_them_though_zeros_have_been_rounded(see_small):
    seen = see_small(pooled(), 3)
    behind, images, features = parts(seen)
    with torch.no_grad():
        rounded = features + 1e-8 * torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        equations = read_features(behind.trunk, rounded, torch.full((3,), 1e-7), None)
        shared = _shared(behind, seen.observation, equations)
        points = images.view(-1, 1)
        left = prior.Joint(equations, shared, 1.0).at(points)(points)
    assert len(left) > features.numel() + images.numel()
    assert left.norm() < 1e-5


def test_where_time_is_short_images_come_back_uncertified(see_small, context):
    seen = see_small(strided(), 3)
    behind, _, features = parts(seen)
    found = images_behind(behind, seen.observation, known(features), context(deadline=0.0))
    assert len(found.images) == 3
    assert not found.certified.any()


CONVOLUTIONS = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 48, 3, stride=2, padding=1)
NORM, DROPS = (
    [CONVOLUTIONS[0], each, nn.ReLU(), CONVOLUTIONS[1], nn.ReLU()] for each in (nn.BatchNorm2d(24), nn.Dropout())
)


@pytest.mark.parametrize(
    ("trunk", "reason"), [(NORM, "(BatchNorm2d in train mode)"), (DROPS, "(Dropout in train mode)")]
)
def test_what_depends_on_other_images_or_chance_is_skipped_in_train_mode_alone(see_small, context, trunk, reason):
    observation = see_small(network(*trunk, features=768), 2).observation
    model = observation.model.eval()  # the client has a copy
    before = {name: each.clone() for name, each in model.state_dict().items()}
    assert SpearPP().supports(observation) is None
    assert not any(each.training for each in model.modules())
    model.train()
    assert reason in SpearPP().supports(observation)
    assert LayerPair().supports(observation) == SpearPP().supports(observation)
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


@pytest.mark.parametrize("attack", [SpearPP(), LayerPair()])
def test_where_no_features_are_found_there_are_no_images(see_small, context, attack):
    observation = see_small(two_layers(), 2).observation
    nothing = {name: torch.zeros_like(each) for name, each in observation.update.tensors.items()}
    run = attack(replace(observation, update=replace(observation.update, tensors=nothing)), context())
    assert (run.status, len(run.reconstruction.images)) == ("ok", 0)
    assert run.reconstruction.diagnostics["features_certified"] == 0


def test_what_is_sent_in_half_precision_gives_no_certificate(see_small, context, monkeypatch):
    monkeypatch.setattr(prior, "_STEPS", 1)
    observation = see_small(two_layers(), 2).observation
    half = {name: each.to(torch.bfloat16) for name, each in observation.update.tensors.items()}
    run = LayerPair()(replace(observation, update=replace(observation.update, tensors=half)), context())
    assert run.status == "ok"
    assert run.reconstruction.certified is None or not run.reconstruction.certified.any()


def test_of_images_that_are_inverted_nothing_more_is_asked(see_small):
    seen = see_small(pooled(), 3)
    behind, images, features = parts(seen)
    open_ = torch.tensor([True, False, True])
    with torch.no_grad():
        equations = read_features(behind.trunk, features, torch.full((3,), 1e-7), None)
        shared = _shared(behind, seen.observation, equations)
        left = shared.left(behind.trunk, images, open_)
        points = images[open_].view(-1, 1)
        missed = prior.Joint(equations.select(open_.nonzero()[:, 0]), left, 1.0).at(points)(points)
        everything = shared.left(behind.trunk, images, torch.ones(3, dtype=torch.bool))
    assert missed.norm() < 1e-5
    assert 0.01 * shared.length < left.length
    for name, each in shared.gradient.items():
        torch.testing.assert_close(everything.gradient[name], each, rtol=0, atol=0)


def test_what_is_missed_is_what_the_true_network_misses_though_derivatives_are_of_a_softened_one(see_small):
    seen = see_small(pooled(), 3)
    behind, images, features = parts(seen)
    with torch.no_grad():
        equations = read_features(behind.trunk, features, torch.full((3,), 1e-7), None)
        points = images.view(-1, 1) + 0.3 * torch.randn(images.numel(), 1, generator=torch.Generator().manual_seed(0))
        missed = prior.Joint(equations, None, 1.0).at(points)(points)[: features.numel(), 0].view_as(features)
        made = behind.trunk.before(points.view_as(images))
    of_each = torch.where(features > 0, made - features, made.relu()) / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(missed, of_each, rtol=1e-4, atol=1e-5)
