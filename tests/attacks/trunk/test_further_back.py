"""Where the layer that the images enter tells nothing, a later one does: the layers before it are its trunk."""

import pytest
import torch
from torch import nn

from gibench import batches, client, seeds
from gibench.attacks.layer_pair import LayerPair
from gibench.attacks.spearpp import SpearPP
from gibench.attacks.trunk.network import behind_trunk
from gibench.defenses.none import NoDefense
from gibench.head import find_head
from gibench.observation import ThreatModel
from gibench.registry import create
from tests.attacks.conftest import Seen

SHAPE, NUMBERS = (1, 8, 8), 64
WIDE = 5 * NUMBERS  # about half of them are positive, and more than an image has numbers


@pytest.fixture(scope="module")
def see():
    """Function that lets a client with digits compute its gradient."""
    digits = create("dataset", "digits").load()

    def observe(model, batch_size):
        truth = batches.draw(digits, batch_size, "iid", 1, seeds.generator(0, "data"))
        noise = seeds.generator(0, "defense")
        release = client.observe(model, digits, truth, [NoDefense()], ThreatModel(), noise, batch_size)
        return Seen(truth, release.observation, digits)

    return observe


def layers(frozen=0, bias=True, activation=nn.ReLU, before=1):
    """A fully connected network, wide at first; of the first linear layers some are frozen."""
    torch.manual_seed(0)
    first = [nn.Linear(NUMBERS, WIDE, bias=bias), activation()]
    for _ in range(before - 1):
        first += [nn.Linear(WIDE, WIDE), activation()]
    for each in first[: 2 * frozen]:
        each.requires_grad_(False)
    later = nn.Linear(WIDE, 120), nn.ReLU(), nn.Linear(120, 60), nn.ReLU(), nn.Linear(60, 10)
    return nn.Sequential(nn.Flatten(), *first, *later)


TOLD_LATER = {
    "frozen": {"frozen": 1},
    "two frozen": {"frozen": 2, "before": 2},
    "no bias": {"bias": False},
    "an activation that nobody knows": {"activation": nn.Hardswish},
}


@pytest.mark.parametrize(
    ("case", "attack"),
    [
        ("frozen", SpearPP()),
        ("two frozen", LayerPair()),
        ("no bias", SpearPP()),
        ("an activation that nobody knows", LayerPair()),
    ],
)
def test_images_are_exact_by_a_later_layer(see, context, case, attack):
    seen = see(layers(**TOLD_LATER[case]), 3)
    run = attack(seen.observation, context())
    assert (run.status, run.reason) == ("ok", "")
    found = run.reconstruction
    assert found.diagnostics["layer"] == ("5" if case == "two frozen" else "3")
    assert seen.exact(found.images).all()
    known_kinks = case != "an activation that nobody knows"
    assert found.certified.tolist() == [known_kinks] * 3


def test_by_a_layer_without_zeros_only_one_of_the_two_can_read(see):
    seen = see(layers(activation=nn.GELU), 2)
    assert SpearPP().supports(seen.observation) is None
    assert behind_trunk(seen.observation) is None  # layer-pair knows it


def test_the_images_own_layer_comes_first(see, context):
    seen = see(layers(), 3)
    for attack in (SpearPP(), LayerPair()):
        found = attack(seen.observation, context()).reconstruction
        assert "layer" not in found.diagnostics
        assert found.certified.all()


@pytest.mark.parametrize("attack", [SpearPP(), LayerPair()], ids=["spearpp", "layer-pair"])
def test_where_no_layer_tells_it_is_said_of_the_first(see, context, attack):
    model = layers().requires_grad_(False)
    model[-1].requires_grad_(True)
    run = attack(see(model, 2).observation, context())
    assert (run.status, run.reason) == ("skipped", "the update has no '1.weight': that parameter is frozen")


class Tied(nn.Module):
    """The first two layers have one weight, and the last two are their own."""

    def __init__(self, by_function):
        super().__init__()
        self.first, self.second = nn.Linear(NUMBERS, NUMBERS), nn.Linear(NUMBERS, NUMBERS)
        self.third, self.last = nn.Linear(NUMBERS, 60), nn.Linear(60, 10)
        self.by_function = by_function
        if not by_function:
            self.second.weight = self.first.weight

    def forward(self, images):
        made = torch.relu(self.first(images.flatten(1)))
        if self.by_function:
            made = torch.relu(nn.functional.linear(made, self.second.weight))
        return self.last(torch.relu(self.third(torch.relu(self.second(made)))))


@pytest.mark.parametrize("by_function", [True, False])
def test_a_layer_whose_weight_the_trunk_uses_too_is_passed_over(by_function):
    model = Tied(by_function)
    assert find_head(model, SHAPE, lambda head: True).layer == "third"
    assert find_head(model, SHAPE) is None
