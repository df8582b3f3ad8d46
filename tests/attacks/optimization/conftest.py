"""Observations of small networks and random images, made without the harness."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gibench.attack import Context
from gibench.observation import Observation, ThreatModel, Update


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
