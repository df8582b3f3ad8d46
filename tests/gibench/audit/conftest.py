"""Clients that are no code of ours: plain PyTorch loops on small networks."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN, STD, RATE = 0.1307, 0.3081, 0.1
SHAPE = (1, 28, 28)


def network(shape=SHAPE, width=200, seed=0):
    """Two hidden layers, torch's initial weights."""
    size = torch.Size(shape).numel()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = nn.Linear(size, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(width, 10))


def pictures(count=8, shape=SHAPE, seed=0):
    """Random 8-bit pixels in [0, 1]."""
    return torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(seed)) / 255


@dataclass
class Round:
    """What a client received, had and sent."""

    model: nn.Module  # with the weights that it received
    images: Tensor
    gradient: dict[str, Tensor]  # of the first step, as `.grad` holds it
    delta: dict[str, Tensor]
    after: dict[str, Tensor]


def trained(images, inputs=None, optimizer=None, smoothing=0.0, reduction="mean", steps=1, model=None, **settings):
    """A client's round: the batch's parts, one a step."""
    model = network(images.shape[1:]) if model is None else model
    received = copy.deepcopy(model)
    inputs = (images - MEAN) / STD if inputs is None else inputs
    labels = torch.arange(len(images)) % 10
    descent = (optimizer or torch.optim.SGD)(model.parameters(), lr=RATE, **settings)
    gradient = {}
    for part, classes in zip(inputs.chunk(steps), labels.chunk(steps), strict=True):
        descent.zero_grad()
        loss = functional.cross_entropy(model(part), classes, label_smoothing=smoothing, reduction=reduction)
        loss.backward()
        gradient = gradient or {name: each.grad.clone() for name, each in model.named_parameters()}
        descent.step()
    after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before = received.state_dict()
    return Round(received, images, gradient, {name: after[name] - before[name] for name in after}, after)


@pytest.fixture(scope="session")
def plain():
    """One step of SGD on 8 pictures, which no test changes."""
    return trained(pictures())
