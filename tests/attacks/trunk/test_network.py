"""A trunk is what is before the first linear layer, in the mode in which it is, whatever it ends in."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gibench.attacks.trunk.network import behind_trunk
from gibench.head import find_head
from tests.attacks.trunk.conftest import network

CONV = nn.Conv2d(3, 6, 3, padding=1)
ENDS = {
    "a ReLU": ([nn.ReLU()], True),
    "a ReLU in place": ([nn.ReLU(inplace=True)], True),
    "a ReLU and pooling": ([nn.ReLU(), nn.MaxPool2d(2, padding=1)], True),
    "the mean of some": ([nn.ReLU(), nn.AvgPool2d(2)], False),
    "a leaky ReLU": ([nn.LeakyReLU(0.2), nn.MaxPool2d(2)], False),
    "a norm": ([nn.ReLU(), nn.GroupNorm(2, 6)], False),
    "nothing": ([], False),
}


class Functional(nn.Module):
    """ReLU and flattening are functions."""

    def __init__(self):
        super().__init__()
        self.conv, self.first, self.last = CONV, nn.Linear(384, 20), nn.Linear(20, 4)

    def forward(self, images):
        return self.last(F.relu(self.first(F.relu(self.conv(images)).flatten(1))))


def split(model, see_small):
    seen = see_small(model, 2)
    return behind_trunk(seen.observation), seen.observation.normalize(seen.truth.images)


@pytest.mark.parametrize("end", ENDS)
def test_features_are_what_the_first_linear_layer_is_fed(see_small, end):
    layers, rectified = ENDS[end]
    trunk = nn.Sequential(CONV, *layers, nn.Flatten())
    size = trunk(torch.zeros(1, 3, 8, 8)).shape[1]
    behind, images = split(network(CONV, *layers, features=size), see_small)
    assert (behind.trunk.rectified, behind.trunk.unknown) == (rectified, "")
    before = behind.trunk.before(images)
    fed = behind.head.trunk(images)
    torch.testing.assert_close(before.relu() if rectified else before, fed)
    assert torch.equal(fed, trunk(images))
    assert not rectified or (before < 0).any()
    torch.testing.assert_close(behind.shown.model(fed), behind.head.model(fed))
    torch.testing.assert_close(replace(behind.trunk, softness=1e-6).before(images), before)
    rounded_off = replace(behind.trunk, softness=0.5).before(images)
    bent = any(isinstance(each, nn.MaxPool2d | nn.LeakyReLU) for each in layers) or (layers and not rectified)
    assert bool((rounded_off - before).abs().max() > 1e-3) == bool(bent)


def test_functions_are_layers_too(see_small):
    behind, images = split(Functional(), see_small)
    assert behind.trunk.rectified
    assert torch.equal(behind.head.trunk(images), CONV(images).relu().flatten(1))


def test_of_an_unknown_part_it_is_said(see_small):
    behind, _ = split(network(CONV, nn.Hardtanh(), features=384), see_small)
    assert behind.trunk.unknown == "Hardtanh"


def test_the_modes_of_a_networks_parts_are_left_as_they_are():
    norm = nn.BatchNorm2d(6)
    model = network(CONV, norm, nn.ReLU(), features=384)
    norm.eval()
    modes = [each.training for each in model.modules()]
    head = find_head(model, (3, 8, 8))
    assert [each.training for each in model.modules()] == modes
    assert len(set(modes)) == 2
    assert head.model.training
