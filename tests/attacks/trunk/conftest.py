"""Small networks with a trunk, and what a client with photographs sends of them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from gibench import batches, client, seeds
from gibench.datasets.base import Split
from gibench.defenses.none import NoDefense
from gibench.observation import ThreatModel
from tests.attacks.conftest import Seen

SIDE = 8


def network(*trunk, features, width=60):
    """A head of one hidden layer behind a trunk; weights by seed 0."""
    return nn.Sequential(*trunk, nn.Flatten(), nn.Linear(features, width), nn.ReLU(), nn.Linear(width, 4))


def strided(width=60):
    """Injective: each 2x2 pixels of three numbers become eight, of which a rectified half is left."""
    torch.manual_seed(0)
    return network(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(),
                   features=48 * 16, width=width)  # fmt: skip


def pooled():
    """Max pooling leaves a quarter."""
    torch.manual_seed(0)
    return network(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), features=12 * 16)


def skipping():
    """The stride skips every second row and column."""
    torch.manual_seed(0)
    return network(nn.Conv2d(3, 48, 1, stride=2), nn.ReLU(), features=48 * 16)


@pytest.fixture(scope="session")
def small(photos):
    """Photographs reduced to 8x8, on the 8-bit grid."""
    images = torch.nn.functional.avg_pool2d(photos.private.images, 32 // SIDE).mul(255).round() / 255
    private = Split(images, photos.private.labels % 4)
    return replace(photos, private=private, public=private, classes=photos.classes[:4])


@pytest.fixture(scope="session")
def see_small(small):
    """Function that lets a client with small photographs compute its gradient."""

    def observe(model, batch_size, seed=0):
        truth = batches.draw(small, batch_size, "iid", 1, seeds.generator(seed, "data"))
        generator = seeds.generator(seed, "defense")
        release = client.observe(model, small, truth, [NoDefense()], ThreatModel(), generator, batch_size)
        return Seen(truth, release.observation, small)

    return observe
