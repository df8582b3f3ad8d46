"""Observations of small networks and random images, made without the harness."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gibench import client
from gibench.attack import Context
from gibench.axes import canonical_defense
from gibench.chain import client_count
from gibench.datasets.base import Images, Split
from gibench.observation import Observation, ThreatModel, Update
from gibench.registry import create
from gibench.spec import parse_chain


@dataclass(frozen=True)
class Scene:
    """What a client did and what a server sees of it."""

    observation: Observation
    images: Tensor
    labels: Tensor


def smooth(images):
    """Random images whose neighbouring pixels are alike, on [0, 1]."""
    images = functional.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    return (images - low) / (high - low)


@pytest.fixture(scope="session")
def make_scene():
    """A function that gives the scene of one batch: a network by a function without arguments, labels by number."""

    def make(
        build,
        labels,
        shape=(3, 8, 8),
        classes=5,
        knows=("batch_size",),
        dtype=torch.float64,
        seed=0,
        images=None,
        **granted,
    ):
        torch.manual_seed(seed)
        model = build().to(dtype)
        targets = torch.tensor(labels)
        images = smooth(torch.rand(len(labels), *shape)).to(dtype) if images is None else images.to(dtype)
        mean, std = torch.full((shape[0],), 0.45), torch.full((shape[0],), 0.25)
        inputs = (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)
        loss = functional.cross_entropy(model(inputs), targets)
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        update = Update(dict(zip(dict(model.named_parameters()), gradient, strict=True)))
        if "batch_size" in knows:
            granted["batch_size"] = len(labels)
        if "labels" in knows:
            granted["labels"] = targets
        observation = Observation(model, update, shape, mean, std, classes, ThreatModel(frozenset(knows)), **granted)
        return Scene(observation, images, targets)

    return make


@pytest.fixture
def see(make_scene, sigmoid_net):
    """A function that gives the scene of four images behind a chain of defenses."""

    def make(defense, knows=("batch_size", "local_hyperparameters", "labels"), build=sigmoid_net):
        scene = make_scene(build, [0, 1, 2, 3])
        split, seen = Split(scene.images, scene.labels), scene.observation
        images = Images(split, split, split, split, tuple("abcde"), seen.mean, seen.std)
        defenses = [create("defense", spec) for spec in parse_chain(canonical_defense(defense))]
        size, noise = len(split) // client_count(defenses), torch.Generator().manual_seed(0)
        threat = ThreatModel(frozenset(knows))
        release = client.observe(seen.model, images, split, defenses, threat, noise, size)
        return replace(scene, observation=release.observation)

    return make


@pytest.fixture
def context():
    return Context(torch.Generator().manual_seed(0), torch.device("cpu"))


@pytest.fixture(scope="session")
def sigmoid_net():
    def build(channels=3, side=8, classes=5):
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1, stride=2),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(6 * (-(-side // 2)) ** 2, classes),
        )
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
        return model

    return build


@pytest.fixture(scope="session")
def relu_net():
    def build(width=60, pixels=192, classes=5):
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, classes),
        )

    return build
