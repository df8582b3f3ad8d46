"""The patch embedding and its positions, found whatever the network's code and names are."""

import pytest
import torch
from torch import nn

from gibench.attacks.transformers.patches import find_patch_embedding
from gibench.registry import create

SHAPE = (3, 32, 32)


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("channels_first", [False, True])
def test_it_is_found_with_the_rows_that_are_added_to_patches(tokens, prefix, linear, channels_first):
    network = tokens(prefix=prefix, linear=linear, channels_first=channels_first)
    found = find_patch_embedding(network, SHAPE)
    assert (found.name, found.positions, found.before, len(found.pixels)) == ("embed", "positions", prefix, 4)
    images = torch.rand(2, *SHAPE)
    patches = found.patches(images)
    assert torch.equal(found.images(patches, SHAPE), images)
    entered = []
    network.encoder.register_forward_pre_hook(lambda _, given: entered.append(given[0]))
    network(images)
    made = patches @ found.weight.T + found.bias + found.added(network.positions)
    torch.testing.assert_close(made, entered[0][:, prefix:])


def test_positions_that_are_not_learned_are_none(tokens):
    assert find_patch_embedding(tokens(fixed=True), SHAPE).positions == ""


def test_a_head_that_is_zero_hides_no_positions():
    network = create("model", "vit-tiny:patch=16,depth=1,width=48").build(SHAPE, 10)
    nn.init.zeros_(network.head.weight)
    assert find_patch_embedding(network, SHAPE).positions == "positions"


def test_the_network_is_left_as_it_was(tokens):
    network = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8), nn.Dropout(), nn.Flatten(), nn.Linear(128, 10))
    before = {name: each.clone() for name, each in network.state_dict().items()}
    state = torch.random.get_rng_state()
    found = find_patch_embedding(network, SHAPE)
    assert (found.name, found.positions) == ("0", "")
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module._forward_hooks for module in network.modules())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 16, 16)

    def forward(self, images):
        return (self.embed(images) + self.embed(images)).flatten(1)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8192, 10)), "embeds the image's patches"),
        (nn.Sequential(nn.Conv2d(3, 8, 16, 8), nn.Flatten(), nn.Linear(72, 10)), "embeds the image's patches"),
        (nn.Sequential(nn.Conv2d(3, 8, 12, 12), nn.Flatten(), nn.Linear(32, 10)), "fed some pixels never"),
        (nn.Sequential(nn.LayerNorm(32), nn.Conv2d(3, 8, 16, 16), nn.Flatten()), "embeds the image's patches"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), "embeds the image's patches"),
        (Twice(), "used once, and 'embed' is used more often"),
    ],
    ids=["padded", "overlapping", "cut-off", "normalised", "whole", "twice"],
)
def test_what_is_none_is_named(network, reason):
    assert reason in find_patch_embedding(network, SHAPE)
