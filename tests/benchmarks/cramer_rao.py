"""What noise leaves of a batch at best: `python tests/benchmarks/cramer_rao.py`, or with batch sizes and widths.

The Cramer-Rao bound of the images, from the true batch and its activation patterns, which no attack has: the covariance
of whatever recovers them without bias is no smaller than the inverse of the Gauss-Newton matrix of all layers'
gradients. What the loss sends back counts as unknown, as it is for the attacks. The diagonal is estimated by solving
for draws of noise. It is proportional to the noise, so that one estimate serves all of it. Beside the PSNR stands the
share of images of which every pixel keeps its 8-bit value, errors taken as gaussian and alike over each colour of
the image. `photos`,
five hidden layers; a line of `leaderboard/results/cramer-rao.csv` for each seed and noise:

    python tests/benchmarks/cramer_rao.py 20x200
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from gibench import batches, client, seeds
from gibench.attack import Context
from gibench.attacks.exact.likelihood import predicted_errors
from gibench.attacks.exact.relu_chain import Point, read_layers
from gibench.datasets.photos import Photos
from gibench.defenses.none import NoDefense
from gibench.models.mlp import MLP
from gibench.observation import ThreatModel

SIZES, SEEDS, DEPTH = ["20x200"], 5, 5
NOISE = (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
FILE = Path("leaderboard/results/cramer-rao.csv")
HALF_LEVEL = 1 / 510


def truth(batch_size: int, width: int, seed: int) -> tuple[Point, Tensor]:
    """The batch of a seed with what its loss sends back, and pixels per unit of the network's input, `[C]`."""
    images = Photos().load()
    batch = batches.draw(images, batch_size, "iid", 1, seeds.generator(seed, "data"))
    with seeds.isolated(seed, "model"):
        model = MLP(width=width, depth=DEPTH).build(images.image_shape, images.num_classes)
    generator = seeds.generator(seed, "defense")
    seen = client.observe(model, images, batch, [NoDefense()], ThreatModel(), generator, batch_size).observation
    layers = read_layers(seen)
    assert layers is not None  # an MLP is a chain
    inputs = seen.normalize(batch.images).flatten(1).double()
    sent = model(inputs.to(seen.mean)).double().softmax(dim=1) - torch.nn.functional.one_hot(
        batch.labels, images.num_classes
    )
    return Point(layers, inputs, sent.detach() / batch_size), seen.std.double()


def main() -> None:
    """Write the lines, and print them."""
    with FILE.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["batch_size", "width", "depth", "seed", "std", "psnr_median", "exact_rate"])
        for size in sys.argv[1:] or SIZES:
            batch_size, width = map(int, size.split("x"))
            for seed in range(SEEDS):
                point, colours = truth(batch_size, width, seed)
                context = Context(seeds.generator(seed, "attack"), torch.device("cpu"))
                unit = predicted_errors(point, [1.0] * len(point.layers), context)[0]
                pixels = point.fed[0].shape[1] / len(colours)
                for std in NOISE:
                    error = std * unit[:, None] * colours
                    decibels = float((-10 * error.square().mean(dim=1).log10()).quantile(0.5))
                    exact = float((HALF_LEVEL / math.sqrt(2) / error).erf().pow(pixels).prod(dim=1).mean())
                    line = [batch_size, width, DEPTH, seed, std, f"{decibels:.3f}", f"{exact:.4f}"]
                    writer.writerow(line)
                    print(*line, flush=True)


if __name__ == "__main__":
    main()
