"""Small vision transformers of several makes, and what a client with photographs sends of them."""

import pytest
import torch
from torch import nn

from gibench import batches, client, seeds
from gibench.registry import create
from gibench.spec import parse_chain
from gibench.threat_model import ThreatModel

PATCH, WIDTH = 16, 96


class Tokens(nn.Module):
    """Patches embedded by a convolution or by a linear layer, positions for `prefix` tokens more, torch's encoder."""

    def __init__(self, prefix=1, linear=False, channels_first=False, fixed=False, classes=10):
        super().__init__()
        self.prefix, self.linear, self.channels_first = prefix, linear, channels_first
        numbers = 3 * PATCH**2
        self.embed = nn.Linear(numbers, WIDTH) if linear else nn.Conv2d(3, WIDTH, PATCH, PATCH)
        tokens = 4 + prefix
        positions = 0.02 * torch.randn(*((1, WIDTH, tokens) if channels_first else (1, tokens, WIDTH)))
        if fixed:
            self.register_buffer("positions", positions)
        else:
            self.positions = nn.Parameter(positions)
        self.extra = nn.Parameter(0.02 * torch.randn(1, prefix, WIDTH))
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, images):
        if self.linear:
            cut = images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
            tokens = self.embed(cut.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2))  # channels last in a patch
        else:
            tokens = self.embed(images).flatten(2).mT
        positions = self.positions.mT if self.channels_first else self.positions
        tokens = torch.cat([self.extra.expand(len(images), -1, -1), tokens], 1) + positions
        return self.head(self.encoder(tokens).mean(1))


@pytest.fixture(scope="session")
def tokens():
    """Function that makes such a network from a seed."""

    def make(seed=0, **options):
        with seeds.isolated(seed, "model"):
            return Tokens(**options)

    return make


@pytest.fixture(scope="session")
def send(photos):
    """Function that gives what a server sees of photographs and a transformer, and the photographs."""

    def observe(batch_size=1, seed=0, model="vit-tiny:patch=16,depth=2", defense="none", knows="batch_size", mend=None):
        truth = batches.draw(photos, batch_size, "iid", 1, seeds.generator(seed, "data"))
        with seeds.isolated(seed, "model"):
            made = create("model", model).build(photos.image_shape, photos.num_classes)
        network = made if mend is None else mend(made)
        defenses = [create("defense", spec) for spec in parse_chain(defense)]
        facts, noise = ThreatModel.parse(knows), seeds.generator(seed, "defense")
        seen = client.observe(network, photos, truth, defenses, facts, noise, batch_size)
        return seen.observation, truth

    return observe


@pytest.fixture(scope="session")
def exact():
    """Function that says how many of the true images are among those found, to the last grey level."""

    def count(truth, images):
        errors = (truth.images[:, None] - images[None]).abs().flatten(2).amax(dim=2)
        return int((errors < 1 / 510).any(dim=1).sum()) if len(images) else 0

    return count
