"""How far the two-valued search carries to deeper networks: `python tests/benchmarks/two_valued_depth.py`.

For depth 1, 2 and 3: the cosine between an image's backward signal at the first hidden layer and the mean signal of
flat images of its class, and how many images one pass of the search comes near. It knows the labels, which only
favours it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gibench import batches, client, seeds
from gibench.attacks.exact.linear_layer import read_gradient
from gibench.attacks.exact.sphere import random_starts
from gibench.attacks.two_valued.search import minimize_two_valued
from gibench.datasets.photos import Photos
from gibench.defenses.none import NoDefense
from gibench.models.mlp import MLP
from gibench.observation import ThreatModel

BATCH_SIZE, WIDTH, SEEDS, STARTS, NEAR = 20, 200, 3, 4, 0.97


def backward_signals(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
    """What comes back to the first hidden layer's outputs from each image, `[m, N]`."""
    hidden = torch.relu(model[1](inputs.flatten(1))).detach().requires_grad_()
    nn.functional.cross_entropy(model[3:](hidden), labels, reduction="sum").backward()
    return hidden.grad.T


def measure(depth: int, labels: str, seed: int) -> tuple[float, int]:
    """The median cosine, and how many images the search comes near."""
    images = Photos().load()
    truth = batches.draw(images, BATCH_SIZE, labels, 1, seeds.generator(seed, "data"))
    with seeds.isolated(seed, "model"):
        model = MLP(width=WIDTH, depth=depth).build(images.image_shape, images.num_classes)
    release = client.observe(
        model, images, truth, [NoDefense()], ThreatModel(), seeds.generator(seed, "defense"), BATCH_SIZE
    )
    observation = release.observation
    gradient = read_gradient(observation, seeds.generator(seed, "attack"))
    assert gradient is not None
    model, live = model.double(), gradient.live
    inputs = observation.normalize(truth.images).double()
    signals = backward_signals(model, inputs, truth.labels)[live]
    columns = signals * (model[1](inputs.flatten(1)) > 0).T[live]
    truths = nn.functional.normalize(gradient.factors.basis.T @ columns, dim=0)
    greys = observation.normalize(torch.linspace(0, 1, 64).view(-1, 1, 1, 1).expand(-1, *images.image_shape)).double()
    typical = torch.stack(
        [backward_signals(model, greys, torch.full((64,), c)).mean(dim=1) for c in range(images.num_classes)], dim=1
    )[live]
    cosines = nn.functional.cosine_similarity(typical[:, truth.labels], signals, dim=0)
    typical = typical / typical.square().mean(dim=0).sqrt()
    classes = truth.labels.repeat(STARTS)
    starts = random_starts(gradient.factors.rank, len(classes), None, torch.Generator().manual_seed(0))
    ends = minimize_two_valued(gradient.factors.basis, typical[:, classes], starts, 500, 1.8).double()
    nearest = (truths.T @ ends).abs().max(dim=0)
    return float(cosines.median()), len(nearest.indices[nearest.values > NEAR].unique())


if __name__ == "__main__":
    torch.set_num_threads(1)
    for depth in (1, 2, 3):
        for labels in ("iid", "same"):
            for seed in range(SEEDS):
                cosine, near = measure(depth, labels, seed)
                print(f"depth {depth}  {labels:4}  seed {seed}  cosine {cosine:.2f}  near {near} of {BATCH_SIZE}")
