"""How many random starts of `layer-pair` end at an image of the batch: `python tests/benchmarks/layer_pair_starts.py`.

For several batch sizes and widths, batches of mixed labels and of one: the share of 200 starts whose fixed point
satisfies the equations, and how many of the images those are.
"""

from __future__ import annotations

import torch

from gibench import batches, client, seeds
from gibench.attacks.exact.linear_layer import read_gradient
from gibench.attacks.layer_pair.next_layer import NextLayer, read_next_layer
from gibench.datasets.photos import Photos
from gibench.defenses.none import NoDefense
from gibench.models.mlp import MLP
from gibench.observation import ThreatModel

SIZES, SEEDS, STARTS = [(20, 100), (20, 200), (64, 200), (64, 400), (64, 1000)], 2, 200


def measure(batch_size: int, width: int, labels: str, seed: int) -> tuple[float, int]:
    """The share of starts that end at an image, and at how many different ones."""
    images = Photos().load()
    truth = batches.draw(images, batch_size, labels, 1, seeds.generator(seed, "data"))
    with seeds.isolated(seed, "model"):
        model = MLP(width=width, depth=5).build(images.image_shape, images.num_classes)
    generator = seeds.generator(seed, "defense")
    observation = client.observe(model, images, truth, [NoDefense()], ThreatModel(), generator, batch_size).observation
    generator = seeds.generator(seed, "attack")
    gradient = read_gradient(observation, generator)
    assert gradient is not None
    following = read_next_layer(observation, gradient, generator)
    assert isinstance(following, NextLayer)
    starts = following.random(STARTS, gradient.factors.basis[0, :, None][:, :0], generator)
    ended, found = 0, set()
    for start in starts.T:
        end = following.judge(following.equations.fixed_points(start[:, None]))
        if bool(end.solved):
            ended += 1
            image = observation.denormalize(end.images.view(-1, *images.image_shape))
            found.add(int((truth.images - image).square().sum(dim=(1, 2, 3)).argmin()))
    return ended / STARTS, len(found)


def main() -> None:
    """Print a line for each kind of batch."""
    torch.set_num_threads(1)
    for batch_size, width in SIZES:
        for labels in ["iid", "same"] if batch_size == 20 else ["iid"]:
            measured = [measure(batch_size, width, labels, seed) for seed in range(SEEDS)]
            shares = ", ".join(f"{share:.2f} ({count} images)" for share, count in measured)
            print(f"B {batch_size}, width {width}, {labels}: {shares}", flush=True)


if __name__ == "__main__":
    main()
